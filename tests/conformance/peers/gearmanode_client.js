// A client of the npm package gearmanode: HOST:PORT, the function and the payload.
'use strict'

const fs = require('fs')
const gearmanode = require('gearmanode')

const [address, name, data] = process.argv.slice(2)
const [host, port] = address.split(':')
const payload = data === '-' ? fs.readFileSync(0) : data

function fail (...reasons) {
  console.error('the job has not completed:', ...reasons)
  process.exit(1)
}

const client = gearmanode.client({ host, port: Number(port) })
for (const event of ['jobServerError', 'socketError', 'socketDisconnect', 'error']) {
  client.on(event, (...details) => fail(event, ...details))
}
client.jobServers[0].setOption('exceptions')
const job = client.submitJob(name, payload)
job.on('complete', () => process.stdout.write(job.response, () => process.exit()))
for (const event of ['failed', 'exception', 'timeout', 'error']) {
  job.on(event, (...details) => fail(event, ...details))
}
