// A client of the npm package node-gearman: HOST:PORT, the function and the payload.
'use strict'

const fs = require('fs')
const Gearman = require('node-gearman')

const [address, name, data] = process.argv.slice(2)
const [host, port] = address.split(':')
const payload = data === '-' ? fs.readFileSync(0) : data

function fail (...reasons) {
  console.error('the job has not completed:', ...reasons)
  process.exit(1)
}

const client = new Gearman(host, Number(port))
const job = client.submitJob(name, payload)
const parts = []
job.on('data', part => parts.push(part))
job.on('end', () => process.stdout.write(Buffer.concat(parts), () => process.exit()))
job.on('error', fail)
client.on('error', fail)
client.on('close', () => fail('the connection was closed'))
// Errors of the server are not told, so that a job which it did not take only times out.
job.setTimeout(10000, fail)
