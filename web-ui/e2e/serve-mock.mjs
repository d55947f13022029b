/** `npm run mock`: the built UI on a made-up hub, to look at without one. */
import { makeServer, MockHub } from './mock-hub.mjs'

const hub = new MockHub()
const account = hub.addAccount('demo', 'demo-demo')
account.servers.push(makeServer('Living room'), makeServer('Attic', { online: false }))
hub.addClaim('ABCD-EFGH', makeServer('Cellar'))
console.log(`${await hub.start(Number(process.env.PORT ?? 8899))}/app/  (demo, demo-demo; claim code ABCD-EFGH)`)
