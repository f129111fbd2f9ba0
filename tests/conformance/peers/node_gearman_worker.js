// A worker of the npm package node-gearman: the argument is HOST:PORT. A signal ends it.
'use strict'

const Gearman = require('node-gearman')

const [host, port] = process.argv[2].split(':')
const worker = new Gearman(host, Number(port))
// There is no payload where it is empty. It has no WORK_STATUS.
const functions = {
  reverse: (payload, job) => job.end(Buffer.from(payload || '').reverse()),
  fail: (payload, job) => job.error(),
  progress: (payload, job) => {
    job.write('half')
    job.end(payload)
  },
  slow: (payload, job) => setTimeout(() => job.end(payload), 500)
}
Object.entries(functions).forEach(([name, callback]) => worker.registerWorker(name, callback))
worker.on('close', () => process.exit(1))
