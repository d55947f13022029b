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
import { shot } from './browser.mjs'
import { story } from './house.mjs'
import { play } from './playing.mjs'

await story(async (house, result, step) => {
  const { hub, user, password } = house

  step('sign_up')
  const owner = await house.person()
  await house.signUp(owner.page, user)

  step('claim')
  result.server_id = await house.claim(owner.page)

  step('open')
  const { tab, address } = await house.open(owner)
  assert.equal(address.protocol, 'https:')
  assert.notEqual(address.origin, hub)
  result.name_url = address.href
  assert.equal(await tab.evaluate(() => window.opener), null)

  step('play')
  await house.passOrigin(tab)
  result.video = await play(tab)

  step('cookies')
  const readable = await tab.evaluate(() => document.cookie)
  assert.ok(!readable.includes('__Host-phlix'), 'a script at the name can read a cookie of ours')
  const ours = (await owner.context.cookies()).filter(({ name }) => name.startsWith('__Host-phlix'))
  for (const { name, httpOnly, secure } of ours) assert.ok(httpOnly && secure, `${name} is not HttpOnly and Secure`)
  result.cookies = ours.map(({ name, domain }) => `${name}@${domain}`).sort()

  step('stranger')
  const stranger = await house.person()
  await house.signUp(stranger.page, `${user}-stranger`)
  const refusal = await stranger.page.goto(address.href)
  result.stranger = { status: refusal?.status(), url: stranger.page.url() }
  await shot(stranger.page, 'story-stranger')
  assert.equal(refusal?.status(), 403)
  assert.equal(await stranger.page.locator('video').count(), 0)

  step('signed_out')
  const nobody = await house.person()
  await nobody.page.goto(address.href)
  await nobody.page.waitForURL((url) => url.origin === hub && url.pathname === '/app/login')
  result.signed_out = { url: nobody.page.url() }
  await shot(nobody.page, 'story-signed-out')

  step('sign_in_at_the_name')
  await nobody.page.getByLabel('Username or e-mail').fill(user)
  await nobody.page.getByLabel('Password').fill(password)
  await nobody.page.getByRole('button', { name: 'Sign in' }).click()
  await house.landed(nobody.page, address.origin)
  result.signed_in_at = nobody.page.url()

  step('complaints')
  assert.deepEqual(house.complaints(), [])

  // Last, since the browser itself logs the 404 that this provokes.
  step('stranger_at_the_hub')
  await stranger.page.goto(`${hub}/app/servers/${result.server_id}`)
  await stranger.page.getByText('You have no such server').waitFor()
})
