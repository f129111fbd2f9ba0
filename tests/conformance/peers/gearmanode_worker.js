// A worker of the npm package gearmanode: the argument is HOST:PORT. A signal ends it.
'use strict'

const gearmanode = require('gearmanode')

const [host, port] = process.argv[2].split(':')
const worker = gearmanode.worker({ host, port: Number(port) })
worker.addFunction('reverse', job => job.workComplete(Buffer.from(job.payload).reverse()))
worker.addFunction('fail', job => job.reportError())
worker.addFunction('progress', job => {
  job.reportStatus(1, 2)
  job.sendWorkData('half')
  job.workComplete(job.payload)
})
worker.addFunction('slow', job => setTimeout(() => job.workComplete(job.payload), 500))
worker.on('error', error => {
  console.error(error)
  process.exit(1)
})
