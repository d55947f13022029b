/**
 * A home server that means harm, in a real browser: what its page tries from
 * the owner's browser reaches nothing of the hub's and nothing of its
 * neighbour's.
 *
 * From the environment:
 *   HUB_URL                 the hub's public address
 *   CLAIM_LINK              of the hostile server; its `/script` and `/hostile` try their worst
 *   NEIGHBOUR_LINK          of a second server of the same owner
 *   USER, PASSWORD          the account to make
 *   HOME                    holds an NSS database that trusts the names' CA
 *
 * Prints one line per finding; exits 0 only when everything held.
 */
import assert from 'node:assert/strict'
import { launch } from '../../web-ui/e2e/browser.mjs'

const { HUB_URL, CLAIM_LINK, NEIGHBOUR_LINK, USER, PASSWORD } = process.env
const hub = new URL(HUB_URL).origin
const browser = await launch()
try {
  const context = await browser.newContext()
  context.setDefaultTimeout(60_000)
  const page = await context.newPage()
  await page.goto(`${hub}/app/signup`)
  await page.getByLabel('Username').fill(USER)
  await page.getByLabel('E-mail').fill(`${USER}@example.org`)
  await page.getByLabel('Password').fill(PASSWORD)
  await page.getByRole('button', { name: 'Sign up' }).click()
  await page.waitForURL('**/app/servers')

  /** Claims a server and opens it: its origin, and the tab that landed there. */
  const open = async (link) => {
    await page.goto(link)
    await page.getByRole('button', { name: 'Claim this server' }).click()
    await page.waitForURL(/\/app\/servers\/[0-9a-f-]{36}$/)
    const button = page.getByRole('link', { name: /^Open/ })
    await button.waitFor()
    const { origin } = new URL(await button.getAttribute('href'))
    const [tab] = await Promise.all([context.waitForEvent('page'), button.click()])
    await tab.waitForURL((url) => url.origin === origin && !url.pathname.startsWith('/.phlix/'))
    return { origin, tab }
  }
  const neighbour = await open(NEIGHBOUR_LINK)
  const hostile = await open(CLAIM_LINK)
  const ours = async () =>
    (await context.cookies())
      .filter(({ name }) => name.startsWith('__Host-phlix'))
      .map(({ name, domain, value }) => `${name} ${domain} ${value}`)
      .sort()
  const before = await ours()
  assert.ok(before.length >= 3, `the hub's session and two tickets: ${before.map((cookie) => cookie.split(' ')[0])}`)

  await hostile.tab.goto(`${hostile.origin}/hostile`)
  await hostile.tab.goto(`${hostile.origin}/script?hub=${encodeURIComponent(hub)}&neighbour=${encodeURIComponent(neighbour.origin)}`)
  await hostile.tab.waitForFunction(() => document.title !== 'waiting')
  const title = await hostile.tab.title()
  assert.equal(title, 'reached nothing')
  console.log(`ok      the script of a hostile page ${title}`)

  assert.deepEqual(await ours(), before, 'a cookie of the hub or of a name was changed')
  console.log('ok      no cookie of ours was set, changed or read')

  // A frame of the hub or of the neighbour on the hostile page shows nothing that it could click through.
  for (const target of [`${hub}/app/servers`, `${neighbour.origin}/.phlix/start`]) {
    const framed = await hostile.tab.evaluate(async (src) => {
      const frame = document.createElement('iframe')
      frame.src = src
      const loaded = new Promise((resolve) => frame.addEventListener('load', resolve, { once: true }))
      document.body.append(frame)
      await loaded
      try {
        return frame.contentDocument?.body.innerText ?? null
      } catch {
        return null
      }
    }, target)
    assert.equal(framed, null, `a frame of ${target} can be read`)
  }
  console.log('ok      nothing of the hub can be read in a frame')

  await page.goto(`${hub}/app/servers`)
  assert.equal(new URL(page.url()).pathname, '/app/servers', 'the owner was signed out')
  await neighbour.tab.reload()
  assert.equal(new URL(neighbour.tab.url()).origin, neighbour.origin)
  console.log('ok      the owner is still signed in at the hub and at the neighbour')
} catch (error) {
  console.error(`FAILED  ${error instanceof Error ? error.stack : error}`)
  process.exitCode = 1
} finally {
  await browser.close()
}
