// A client of the npm package abraxas: HOST:PORT, the function and the payload.
'use strict'

const fs = require('fs')
const abraxas = require('abraxas')

const [address, name, data] = process.argv.slice(2)
const payload = data === '-' ? fs.readFileSync(0) : data

function fail (...reasons) {
  console.error('the job has not completed:', ...reasons)
  process.exit(1)
}

const client = abraxas.Client.connect({ servers: [address], submitTimeout: 10000 })
client.on('connection-error', fail)
client.on('disconnect', () => fail('the connection was lost'))
const job = client.submitJob(name, {}, Buffer.from(payload))
const parts = []
job.on('data', part => parts.push(part))
job.on('end', () => process.stdout.write(Buffer.concat(parts), () => process.exit()))
job.on('error', fail)
