/** `npm run mock`: the built UI on a made-up hub, to look at without one. */
import { MockHome, SERIES } from './mock-home.mjs'
import { makeServer, MockHub } from './mock-hub.mjs'

const hub = new MockHub()
const account = hub.addAccount('demo', 'demo-demo')
account.servers.push(makeServer('Living room'), makeServer('Attic', { online: false }))
const phlix = makeServer('Phlix at home', { kind: 'phlix', version: '0.97.3' })
account.servers.push(phlix)
const home = new MockHome()
hub.homes.set(phlix.info.serverId, home)
for (let film = 0; film < 60; film += 1) home.add()
const series = home.add({ name: 'A Series', type: 'series', library_id: SERIES })
home.add({ name: 'Pilot', type: 'episode', library_id: SERIES, parent_id: series.id, season_number: 1, episode_number: 1 })
hub.addClaim('ABCD-EFGH', makeServer('Cellar'))
console.log(`${await hub.start(Number(process.env.PORT ?? 8899))}/app/  (demo, demo-demo; claim code ABCD-EFGH)`)
