/**
 * A home server that means harm: what its scripts can't do beyond its own
 * name, in a browser that is signed in at the hub as the server's owner.
 *
 * Runs against a real hub; environment as story-play.mjs. The attacks run as
 * scripts of the server's own pages, with all that such a page may do.
 */
import assert from 'node:assert/strict'
import { story } from './house.mjs'

await story(async (house, result, step) => {
  const { hub, user } = house
  const owner = await house.person()
  await house.signUp(owner.page, user)
  const id = await house.claim(owner.page)
  const { tab, address } = await house.open(owner)
  const parent = address.hostname.slice(address.hostname.indexOf('.') + 1)

  /** Is the owner still signed in at the hub, and is the server still theirs? */
  const untouched = () =>
    owner.page.evaluate(async (server) => {
      const answers = await Promise.all(['/api/v1/me', `/api/v1/me/servers/${server}`].map((path) => fetch(path)))
      return answers.map(({ status }) => status)
    }, id)
  assert.deepEqual(await untouched(), [200, 200])

  step('reads_no_cookie_of_ours')
  const readable = await tab.evaluate(() => document.cookie)
  assert.ok(!readable.includes('__Host-phlix'), `it reads ${readable}`)

  step('sets_no_cookie_of_ours')
  await tab.evaluate(
    ([domain, hubHost]) => {
      const far = ['', `; Domain=${domain}`, `; Domain=${hubHost}`, '; Domain=localhost']
      for (const name of ['__Host-phlix-s', '__Host-phlix-v', '__Host-phlix-start']) {
        for (const reach of far) document.cookie = `${name}=planted; Path=/; Secure${reach}`
      }
      document.cookie = `planted=1; Path=/; Domain=${hubHost}`
    },
    /** @type {const} */ ([parent, new URL(hub).hostname]),
  )
  const atTheHub = await owner.context.cookies(hub)
  assert.ok(!atTheHub.some(({ value, name }) => value === 'planted' || name === 'planted'), 'it planted a cookie at the hub')
  const ours = (await owner.context.cookies(address.href)).filter(({ name }) => name === '__Host-phlix-v')
  assert.ok(ours.length > 0 && ours.every(({ value, httpOnly }) => httpOnly && value !== 'planted'), 'it replaced the ticket')
  assert.deepEqual(await untouched(), [200, 200])

  step('reads_nothing_of_the_api')
  const reads = await tab.evaluate(
    async ([origin, server]) => {
      const paths = ['/api/v1/me', '/api/v1/me/servers', `/api/v1/me/servers/${server}`, '/app/servers']
      return Promise.all(
        paths.map((path) =>
          fetch(origin + path, { credentials: 'include' }).then(
            (answer) => `${path} answered ${answer.status}`,
            () => 'refused',
          ),
        ),
      )
    },
    /** @type {const} */ ([hub, id]),
  )
  assert.deepEqual([...new Set(reads)], ['refused'])

  step('writes_nothing_at_the_hub')
  await tab.evaluate(
    async ([origin, server]) => {
      // "Simple" requests need no leave from the hub; what counts is what they change.
      const shots = [
        ['POST', '/api/v1/auth/logout', '{}'],
        ['POST', `/api/v1/me/servers/${server}`, '_method=DELETE'],
        ['POST', '/api/v1/server-claims/claim', '{"claim_code":"AAAA-AAAA"}'],
      ]
      for (const [method = '', path, body = ''] of shots) {
        await fetch(origin + path, { method, body, mode: 'no-cors', credentials: 'include' }).catch(() => undefined)
      }
      await fetch(`${origin}/api/v1/me/servers/${server}`, { method: 'DELETE', credentials: 'include' }).catch(() => undefined)
    },
    /** @type {const} */ ([hub, id]),
  )
  assert.deepEqual(await untouched(), [200, 200])

  step('posts_no_form_as_the_owner')
  const formed = await owner.context.newPage()
  await formed.goto(tab.url())
  await Promise.all([
    formed.waitForResponse((response) => response.url() === `${hub}/api/v1/auth/logout`),
    formed.evaluate((origin) => {
      const form = document.createElement('form')
      form.method = 'post'
      form.enctype = 'text/plain'
      form.action = `${origin}/api/v1/auth/logout`
      document.body.append(form)
      form.submit()
    }, hub),
  ])
  await formed.close()
  assert.deepEqual(await untouched(), [200, 200])

  step('frames_no_page_of_the_hub')
  const framed = await tab.evaluate(
    (origin) =>
      new Promise((resolve) => {
        const frame = document.createElement('iframe')
        frame.src = `${origin}/app/servers`
        frame.addEventListener('load', () => {
          try {
            resolve(frame.contentDocument?.body.textContent ?? 'nothing')
          } catch {
            resolve('nothing')
          }
        })
        document.body.append(frame)
      }),
    hub,
  )
  assert.equal(framed, 'nothing')
  for (const frame of tab.frames().slice(1)) assert.equal(await frame.locator('#app').count(), 0, 'the hub lets itself be framed')

  step('scripts_no_window_of_the_hub')
  const [opened] = await Promise.all([
    owner.context.waitForEvent('page'),
    tab.evaluate((origin) => void Reflect.set(window, 'victim', window.open(`${origin}/app/servers`)), hub),
  ])
  await opened.getByRole('heading', { name: 'My servers' }).waitFor()
  assert.equal(await opened.evaluate(() => window.opener), null, 'the hub keeps an opener')
  const reached = await tab.evaluate(() => {
    const victim = /** @type {Window} */ (Reflect.get(window, 'victim'))
    try {
      return victim.document?.title ?? 'nothing'
    } catch {
      return 'nothing'
    }
  })
  assert.equal(reached, 'nothing')
  await opened.close()

  step('runs_no_worker_for_our_paths')
  const worker = await tab.evaluate(async () => {
    if (!navigator.serviceWorker) return 'refused'
    return navigator.serviceWorker.register('/.phlix/start', { scope: '/' }).then(
      () => 'registered',
      () => 'refused',
    )
  })
  assert.equal(worker, 'refused')

  assert.deepEqual(await untouched(), [200, 200])
})
