// A client of the npm package gearman: HOST:PORT, the function and the payload.
'use strict'

const fs = require('fs')
const gearman = require('gearman')

const [address, name, data] = process.argv.slice(2)
const [host, port] = address.split(':')
const payload = data === '-' ? fs.readFileSync(0) : data

function fail (...reasons) {
  console.error('the job has not completed:', ...reasons)
  process.exit(1)
}

// The timeout is that of a socket on which nothing happens.
const client = gearman(host, Number(port), { timeout: 10000 })
client.on('WORK_COMPLETE', job => process.stdout.write(job.payload, () => process.exit()))
for (const event of ['WORK_FAIL', 'WORK_EXCEPTION', 'ERROR', 'error', 'close', 'timeout']) {
  client.on(event, (...details) => fail(event, ...details))
}
client.connect(() => {
  client.setOption('exceptions')
  client.submitJob(name, payload)
})
