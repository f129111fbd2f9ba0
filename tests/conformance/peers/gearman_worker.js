// A worker of the npm package gearman: the argument is HOST:PORT. A signal ends it.
'use strict'

const gearman = require('gearman')

const [host, port] = process.argv[2].split(':')
const worker = gearman(host, Number(port))

function complete (job, result) {
  worker.sendWorkComplete(job.handle, result)
  worker.grabJob()
}

const functions = {
  reverse: job => complete(job, Buffer.from(job.payload).reverse()),
  fail: job => {
    worker.sendWorkFail(job.handle)
    worker.grabJob()
  },
  progress: job => {
    worker.sendWorkStatus(job.handle, '1', '2') // Numbers are an error to it.
    worker.sendWorkData(job.handle, 'half')
    complete(job, job.payload)
  },
  slow: job => setTimeout(() => complete(job, job.payload), 500)
}

worker.on('NOOP', () => worker.grabJob())
worker.on('NO_JOB', () => worker.preSleep())
worker.on('JOB_ASSIGN', job => functions[job.func_name](job))
worker.on('close', () => process.exit(1))
worker.connect(() => {
  Object.keys(functions).forEach(name => worker.addFunction(name))
  worker.grabJob()
})
