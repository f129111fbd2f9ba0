// A worker of the npm package abraxas: the argument is HOST:PORT. A signal ends it.
'use strict'

const abraxas = require('abraxas')

const worker = abraxas.Client.connect({ servers: [process.argv[2]] })
// An empty payload is an empty array. It sends WORK_DATA only to its own server.
const bytes = job => Buffer.from(job.payload)
worker.registerWorker('reverse', job => bytes(job).reverse())
// It sends WORK_EXCEPTION and then WORK_FAIL, for which gearmand has an error, as the job has ended
// already. It survives the first of those, and ends after the second.
worker.registerWorker('fail', () => { throw new Error('this job fails') })
worker.registerWorker('progress', job => {
  job.status(0.5)
  return bytes(job)
})
worker.registerWorker('slow', job => new Promise(resolve => {
  setTimeout(() => resolve(bytes(job)), 500)
}))
