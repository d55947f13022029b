/**
 * A media server with a login, cookies, uploads and a WebSocket of its own, at its name in a real browser.
 *
 * From the environment:
 *   HUB_URL, SERVER_URL          the hub's public address, the server's name
 *   ACCESS                       `protected` (the hub's sign-in comes first) or `open`
 *   HTTP                         `h2` (QUIC is off), `h3` (forced), or `alt-svc`: the first load is over h2, and
 *                                a later one over h3, because the first told so
 *   USER, PASSWORD               an account at the hub
 *   ORIGIN_USER, ORIGIN_PASSWORD the server's own
 *   POSTER, POSTER_SHA256        a file to upload
 *   HOME                         holds an NSS database that trusts the names' CA
 *   SHOT_DIR                     optional: pictures
 *
 * Prints one line per finding; exits 0 only when everything held.
 */
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { chromium } from '../../web-ui/node_modules/playwright-core/index.mjs'

const env = process.env
const server = new URL(env.SERVER_URL)

/**
 * Chromium takes a CA of the user's own for QUIC only at hosts that are named to it. Naming one with its port
 * forces QUIC there; with another port it is trusted and nothing is forced.
 */
const quic = {
  h2: ['--disable-quic'],
  h3: ['--enable-quic', `--origin-to-force-quic-on=${server.host}`],
  'alt-svc': ['--enable-quic', `--origin-to-force-quic-on=${server.hostname}:1`],
}[env.HTTP]
const browser = await chromium.launch({
  executablePath: env.CHROMIUM ?? '/usr/bin/chromium',
  headless: true,
  args: ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking', ...quic],
})

/** Every HTTP version that the page and what it loaded came by. */
const versions = (page) =>
  page.evaluate(() =>
    [...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]
      .map(({ nextHopProtocol }) => nextHopProtocol)
      .filter((name) => name),
  )

async function shot(page, name) {
  if (env.SHOT_DIR) await page.screenshot({ path: join(env.SHOT_DIR, `jellyfin-${env.ACCESS}-${env.HTTP}-${name}.png`) })
}

try {
  const context = await browser.newContext()
  context.setDefaultTimeout(30_000)
  const page = await context.newPage()
  const wrong = []
  page.on('pageerror', (error) => wrong.push(`exception: ${error.message}`))
  // By which HTTP each answer of the server came, redirects too.
  const protocols = []
  const network = await context.newCDPSession(page)
  const note = ({ url, protocol }) => new URL(url).origin === server.origin && protocols.push(protocol)
  network.on('Network.requestWillBeSent', ({ redirectResponse }) => redirectResponse && note(redirectResponse))
  network.on('Network.responseReceived', ({ response }) => note(response))
  await network.send('Network.enable')

  await page.goto(server.href)
  if (env.ACCESS === 'protected') {
    await page.getByLabel('Username or e-mail').fill(env.USER)
    await shot(page, '1-hub')
    assert.equal(new URL(page.url()).origin, new URL(env.HUB_URL).origin, 'the hub asks first')
    await page.getByLabel('Password').fill(env.PASSWORD)
    await page.getByRole('button', { name: 'Sign in' }).click()
  }
  await page.waitForURL((url) => url.origin === server.origin && url.pathname === '/web/')
  console.log(`ok      its page came by ${env.ACCESS === 'protected' ? 'way of the hub' : 'itself'}`)

  if (env.HTTP === 'alt-svc') {
    assert.equal(protocols[0], 'h2', `nothing told of HTTP/3 yet: ${protocols}`)
    // The connection over QUIC is made beside; a load after that is over it.
    for (let n = 0; n < 10 && !(await versions(page)).includes('h3'); n++) await page.reload()
    console.log(`ok      Alt-Svc was followed: ${protocols}`)
  }

  await page.getByLabel('User', { exact: true }).fill(env.ORIGIN_USER)
  await page.getByLabel('Password').fill(env.ORIGIN_PASSWORD)
  await page.getByRole('button', { name: 'Sign in' }).click()
  for (const name of ['A poster', 'The same poster']) {
    const image = page.getByAltText(name, { exact: true })
    await image.waitFor()
    await page.waitForFunction((alt) => document.querySelector(`img[alt="${alt}"]`).naturalWidth === 400, name)
  }
  console.log('ok      its own login, Authorization and cookie: the posters are there')

  await page.getByLabel('New poster').setInputFiles(env.POSTER)
  await page.waitForFunction(() => document.getElementById('uploaded').textContent !== '')
  const uploaded = JSON.parse(await page.locator('#uploaded').textContent())
  assert.equal(uploaded.sha256, env.POSTER_SHA256)
  console.log(`ok      an upload of ${uploaded.length} bytes arrived`)

  await page.waitForFunction(() => document.getElementById('pushed').textContent.includes('"Data":10'))
  const pushed = (await page.locator('#pushed').textContent()).trim().split('\n')
  assert.ok(pushed.includes('{"MessageType":"KeepAlive"}'), `no answer among ${pushed}`)
  const order = pushed.filter((line) => line.includes('Data')).map((line) => JSON.parse(line).Data)
  assert.deepEqual(order, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
  assert.ok(!pushed.includes('closed'))
  console.log('ok      its WebSocket answers and pushes')
  await shot(page, '2-signed-in')

  const refused = await page.evaluate(async () => {
    const answer = await fetch('/System/Restart', { method: 'POST' })
    return [answer.status, (await answer.json()).code]
  })
  assert.deepEqual(refused, [403, 'path.guarded'])
  console.log('ok      what it opens to local callers is refused')

  const wanted = env.HTTP === 'h2' ? 'h2' : 'h3'
  const came = new Set(await versions(page))
  assert.deepEqual([...came], [wanted], `loaded over ${[...came]}`)
  console.log(`ok      all came over ${wanted}`)
  const readable = await page.evaluate(() => document.cookie)
  assert.ok(!/phlix|jellyfin/.test(readable), `a script reads ${readable}`)
  assert.deepEqual(wrong, [])
} catch (error) {
  console.error(`FAILED  ${error instanceof Error ? error.stack : error}`)
  process.exitCode = 1
} finally {
  await browser.close()
}
