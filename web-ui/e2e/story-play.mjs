/**
 * The whole house in a browser: sign up, claim, *Open*, play and seek a real
 * video through the relay; a stranger is refused, and nobody comes in unsigned.
 *
 * Runs against a real hub. From the environment:
 *   HUB_URL                     the hub's public address
 *   CLAIM_CODE or CLAIM_LINK    what the agent printed
 *   USER, PASSWORD              the account to make (and `<USER>-stranger`)
 *   HOME                        holds an NSS database that trusts the names' CA
 *   ORIGIN_USER, ORIGIN_PASSWORD, PLAYER_PATH   optional: the origin's own
 *                               sign-in form, and where its player page is
 *   SHOT_DIR, CHROMIUM          optional: pictures, another browser
 *
 * Prints one line of JSON; exits 0 only when everything held.
 */
import assert from 'node:assert/strict'
import { complaintsOf, launch, shot } from './browser.mjs'

/** @import { Page } from 'playwright-core' */

/** The agent claims, dials and proves itself within this, on a busy machine. */
const TUNNEL_MS = 60_000
const STEP_MS = 30_000

const hub = new URL(required('HUB_URL')).origin
const user = required('USER')
const password = required('PASSWORD')
const link = process.env.CLAIM_LINK ?? `${hub}/claim-server?code=${encodeURIComponent(required('CLAIM_CODE'))}`

/** @type {Record<string, unknown>} */
const result = { ok: false, step: 'launch' }
const started = Date.now()

/** @param {string} name */
function step(name) {
  result.step = name
}

/** @param {string} name */
function required(name) {
  const value = process.env[name]
  if (!value) {
    console.error(`${name} must be set`)
    process.exit(2)
  }
  return value
}

const browser = await launch()
/** @type {Page | undefined} */
let shown

/** Each person has their own browser profile. */
async function person() {
  const context = await browser.newContext()
  context.setDefaultTimeout(STEP_MS)
  const complaints = complaintsOf(context, [/server responded with a status of (401|403)/])
  const page = await context.newPage()
  shown = page
  return { context, page, complaints }
}

/** @param {Page} page @param {string} name */
async function signUp(page, name) {
  await page.goto(`${hub}/app/signup`)
  await page.getByLabel('Username').fill(name)
  await page.getByLabel('E-mail').fill(`${name}@example.org`)
  await page.getByLabel('Password').fill(password)
  await page.getByRole('button', { name: 'Sign up' }).click()
  await page.waitForURL('**/app/servers')
}

/** Waits until the browser came to rest on the server's name. @param {Page} page @param {string} name */
async function landed(page, name) {
  await page.waitForURL((url) => url.origin === name && !url.pathname.startsWith('/.phlix/'))
}

/** The origin's own sign-in, when it has one and we were told how. @param {Page} page */
async function passOrigin(page) {
  if (process.env.ORIGIN_USER) {
    const secret = page.locator('input[type=password]')
    await secret.waitFor()
    await page.locator('form input:not([type=password]):not([type=hidden]):not([type=submit])').first().fill(process.env.ORIGIN_USER)
    await secret.fill(process.env.ORIGIN_PASSWORD ?? '')
    await Promise.all([page.waitForEvent('load'), secret.press('Enter')])
  }
  if (process.env.PLAYER_PATH) await page.goto(new URL(process.env.PLAYER_PATH, page.url()).href)
}

/** Plays, then seeks and plays on. @param {Page} page */
async function play(page) {
  const video = page.locator('video').first()
  await video.waitFor({ state: 'attached' })
  await video.evaluate(async (/** @type {HTMLVideoElement} */ element) => {
    element.muted = true
    await element.play()
  })
  const element = await video.elementHandle()
  /** @param {number} time */
  const passes = (time) =>
    page.waitForFunction(
      ([node, past]) => {
        const { error, currentTime, seeking } = /** @type {HTMLVideoElement} */ (node)
        if (error) throw new Error(`media error ${error.code}: ${error.message}`)
        return !seeking && currentTime > /** @type {number} */ (past)
      },
      /** @type {const} */ ([element, time]),
    )
  await passes(1)
  const before = await video.evaluate((/** @type {HTMLVideoElement} */ node) => [node.currentTime, node.duration])
  const [played = 0, duration = 0] = before
  assert.ok(Number.isFinite(duration) && duration > 6, `the video lasts ${duration} s; too short to seek in`)
  const target = Math.max(duration * 0.6, Math.min(played + 3, duration - 3))
  await video.evaluate((/** @type {HTMLVideoElement} */ node, time) => {
    node.currentTime = time
  }, target)
  await passes(target + 0.5)
  const after = await video.evaluate((/** @type {HTMLVideoElement} */ node) => node.currentTime)
  await shot(page, 'story-playing')
  return { duration, played, seek_to: target, played_after_seek: after }
}

try {
  step('sign_up')
  const owner = await person()
  await signUp(owner.page, user)

  step('claim')
  await owner.page.goto(link)
  await owner.page.getByRole('heading', { name: 'Is this your server?' }).waitFor()
  await shot(owner.page, 'story-claim')
  await owner.page.getByRole('button', { name: 'Claim this server' }).click()
  await owner.page.waitForURL(/\/app\/servers\/[0-9a-f-]{36}$/)
  result.server_id = owner.page.url().split('/').at(-1)

  step('open')
  const open = owner.page.getByRole('link', { name: /^Open/ })
  await open.waitFor({ timeout: TUNNEL_MS })
  await shot(owner.page, 'story-server')
  const address = new URL((await open.getAttribute('href')) ?? '')
  assert.equal(address.protocol, 'https:')
  assert.notEqual(address.origin, hub)
  result.name_url = address.href
  const [tab] = await Promise.all([owner.context.waitForEvent('page'), open.click()])
  shown = tab
  await landed(tab, address.origin)
  assert.equal(await tab.evaluate(() => window.opener), null)

  step('play')
  await passOrigin(tab)
  result.video = await play(tab)

  step('cookies')
  const readable = await tab.evaluate(() => document.cookie)
  assert.ok(!readable.includes('__Host-phlix'), 'a script at the name can read a cookie of ours')
  const ours = (await owner.context.cookies()).filter(({ name }) => name.startsWith('__Host-phlix'))
  for (const { name, httpOnly, secure } of ours) assert.ok(httpOnly && secure, `${name} is not HttpOnly and Secure`)
  result.cookies = ours.map(({ name, domain }) => `${name}@${domain}`).sort()

  step('stranger')
  const stranger = await person()
  await signUp(stranger.page, `${user}-stranger`)
  const refusal = await stranger.page.goto(address.href)
  result.stranger = { status: refusal?.status(), url: stranger.page.url() }
  await shot(stranger.page, 'story-stranger')
  assert.equal(refusal?.status(), 403)
  assert.equal(await stranger.page.locator('video').count(), 0)
  const shared = await stranger.page.goto(`${hub}/app/servers/${result.server_id}`)
  assert.equal(shared?.status(), 200)
  await stranger.page.getByText('You have no such server').waitFor()

  step('signed_out')
  const nobody = await person()
  await nobody.page.goto(address.href)
  await nobody.page.waitForURL((url) => url.origin === hub && url.pathname === '/app/login')
  result.signed_out = { url: nobody.page.url() }
  await shot(nobody.page, 'story-signed-out')

  step('sign_in_at_the_name')
  await nobody.page.getByLabel('Username or e-mail').fill(user)
  await nobody.page.getByLabel('Password').fill(password)
  await nobody.page.getByRole('button', { name: 'Sign in' }).click()
  await landed(nobody.page, address.origin)
  result.signed_in_at = nobody.page.url()

  step('complaints')
  // The origin's pages may complain of what they like; ours may not.
  const ours_complained = [owner, stranger, nobody]
    .flatMap(({ complaints }) => complaints)
    .filter((complaint) => complaint.includes(`(${hub}`))
    .filter((complaint) => !/status of 404.*\/api\/v1\/me\/servers\//.test(complaint))
  assert.deepEqual(ours_complained, [])

  result.ok = true
  delete result.step
} catch (error) {
  result.error = error instanceof Error ? error.message : String(error)
  result.at = shown?.url()
  if (shown) await shot(shown, `story-failed-${result.step}`).catch(() => undefined)
} finally {
  await browser.close()
}

result.ms = Date.now() - started
console.log(JSON.stringify(result))
process.exitCode = result.ok ? 0 : 1
