// The server of the npm package abraxas: the argument is HOST:PORT. A signal ends it.
'use strict'

const abraxas = require('abraxas')

const [host, port] = process.argv[2].split(':')
abraxas.Server.listen({ host, port: Number(port) })
