/** What a person does with the UI, story by story. */
import assert from 'node:assert/strict'
import { shot } from './browser.mjs'
import { makeServer } from './mock-hub.mjs'
import { enter, fits, focused, HOSTILE, REFUSED } from './steps.mjs'

/** @import { Story } from './steps.mjs' */

/** @type {Story[]} */
export const stories = [
  {
    name: 'sign-up-claim-and-open',
    expected: [REFUSED],
    async tell({ hub, page, context }) {
      const server = makeServer('Living room', { relayUrl: `${hub.origin}/the-server` })
      hub.addClaim('ABCD-EFGH', server)

      // The QR link, signed out: by way of sign-up, and back with the code.
      await page.goto('/app/claim?code=abcdefgh')
      await page.waitForURL(/\/app\/login\?next=/)
      assert.equal(await page.title(), 'Sign in · Phlix Hub')
      await shot(page, 'login')
      await page.getByRole('link', { name: 'Sign up' }).click()
      await page.getByRole('heading', { name: 'Sign up' }).waitFor()
      await shot(page, 'signup')
      await page.getByRole('button', { name: 'Sign up' }).click()
      await page.getByText('Choose a name of 3 to 50 characters.').waitFor()
      assert.equal(await focused(page), 'input: Username')
      await shot(page, 'signup-complaints')
      await page.getByLabel('Username').fill('ada')
      await page.getByLabel('E-mail').fill('ada@example.org')
      await page.getByLabel('Password').fill('correct horse')
      await page.getByRole('button', { name: 'Sign up' }).click()

      // It shows what asks, and claims nothing by itself.
      await page.getByRole('heading', { name: 'Is this your server?' }).waitFor()
      await page.getByText('192.168.1.20').waitFor()
      await page.getByText('2 minutes ago').waitFor()
      await page.getByText('ABCD-EFGH').waitFor()
      assert.deepEqual(hub.writes, ['POST /api/v1/auth/register'])
      await shot(page, 'claim')
      await page.getByRole('button', { name: 'Claim this server' }).click()

      await page.waitForURL(/\/app\/servers\/[0-9a-f-]{36}$/)
      await page.getByRole('heading', { name: 'Living room' }).waitFor()
      await page.getByRole('status').filter({ hasText: 'Living room is yours now.' }).waitFor()
      assert.equal(await page.title(), 'Living room · Phlix Hub')
      await shot(page, 'server')

      const open = page.getByRole('link', { name: /^Open/ })
      assert.equal(await open.getAttribute('rel'), 'noopener')
      const [tab] = await Promise.all([context.waitForEvent('page'), open.click()])
      await tab.waitForLoadState()
      assert.deepEqual(hub.visited, ['/the-server'])
      assert.equal(await tab.evaluate(() => window.opener), null)

      // No token anywhere that a script can read.
      const readable = await page.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie]))
      assert.equal(readable, '[{},{},""]')
    },
  },
  {
    name: 'empty-list-says-what-to-do',
    async tell(world) {
      const { hub, page } = world
      await enter(world, hub.addAccount('ada', 'correct horse'))
      await page.goto('/')
      await page.getByRole('heading', { name: 'No server yet' }).waitFor()
      await page.getByText(`phlix agent --hub ${hub.origin} --to http://127.0.0.1:8096`).waitFor()
      await shot(page, 'servers-empty')
      await page.getByRole('link', { name: 'Enter a claim code' }).click()
      await page.getByLabel('Claim code').fill('abc')
      await page.keyboard.press('Enter')
      await page.getByText('A claim code has eight letters and digits').waitFor()
      await shot(page, 'claim-form')
    },
  },
  {
    name: 'servers-and-their-states',
    async tell(world) {
      const { hub, page } = world
      const account = hub.addAccount('ada', 'correct horse')
      const connecting = makeServer('Cabin')
      connecting.info.relayActive = false
      account.servers.push(makeServer('Living room'), makeServer('Attic', { online: false }), connecting)
      await enter(world, account)
      await page.goto('/app/servers')
      await page.getByRole('link', { name: 'Living room' }).waitFor()
      for (const word of ['Online', 'Offline', 'Connecting']) await page.getByText(word, { exact: true }).waitFor()
      await page.getByText('Last seen 2 hours ago').waitFor()
      await shot(page, 'servers')
      await page.getByRole('link', { name: 'Attic' }).click()
      await page.getByText('No tunnel is up').waitFor()
      assert.equal(await page.getByRole('link', { name: /^Open/ }).count(), 0)
      await shot(page, 'server-offline')
    },
  },
  {
    name: 'the-owner-opens-and-protects-a-name',
    expected: [REFUSED],
    async tell(world) {
      const { hub, page } = world
      const account = hub.addAccount('ada', 'correct horse')
      const server = makeServer('Living room')
      account.servers.push(server)
      await enter(world, account)
      await page.goto(`/app/servers/${server.info.serverId}`)
      await page.getByText('Protected', { exact: true }).waitFor()

      // Opening asks first; Escape takes it back.
      const opener = page.getByRole('button', { name: /^Open .* to everyone/ })
      await opener.click()
      await page.getByRole('dialog', { name: 'Open this name to everyone?' }).waitFor()
      await shot(page, 'server-open-name')
      await page.keyboard.press('Escape')
      await page.getByRole('dialog').waitFor({ state: 'detached' })
      assert.deepEqual(hub.writes, [])
      assert.match(await focused(page), /^button: Open to everyone/)

      await opener.click()
      hub.faults.push({ match: /^PUT/, status: 500, body: {} })
      await page.getByRole('button', { name: 'Open to everyone', exact: true }).click()
      await page.getByRole('alert').filter({ hasText: 'The hub has a problem (500)' }).waitFor()
      await page.getByRole('button', { name: 'Open to everyone', exact: true }).click()
      await page.getByText('Open', { exact: true }).and(page.locator('.badge')).waitFor()
      assert.equal(server.detail.names[0]?.access, 'open')

      await page.getByRole('button', { name: /^Protect / }).click()
      await page.getByText('Protected', { exact: true }).waitFor()
      assert.equal(server.detail.names[0]?.access, 'protected')
    },
  },
  {
    name: 'the-owner-picks-a-name-and-gives-it-up',
    expected: [REFUSED],
    async tell(world) {
      const { hub, page } = world
      const account = hub.addAccount('ada', 'correct horse')
      const server = makeServer('Living room')
      account.servers.push(server)
      await enter(world, account)
      await page.goto(`/app/servers/${server.info.serverId}`)
      const given = server.detail.names[0]?.host ?? ''

      // It goes nowhere while it is the only one.
      const field = page.getByLabel('Add a name')
      await field.waitFor()
      assert.equal(await page.getByRole('button', { name: `Remove ${given}` }).count(), 0)

      // Each reason is said while typing, by the keyboard alone.
      await field.focus()
      for (const [typed, said] of [
        ['tv', 'A name has at least 3 characters.'],
        ['ann tv', 'Use only letters from a to z, digits and hyphens.'],
        ['www', 'This name is reserved for the hub itself.'],
        ['adrnin', 'This looks too much like a name that is reserved for the hub.'],
        [given.split('.')[0] ?? '', 'Somebody else has this name.'],
      ]) {
        await field.fill(typed ?? '')
        await page.getByRole('status').filter({ hasText: said }).waitFor()
        assert.equal(await field.getAttribute('aria-invalid'), 'true')
        await page.keyboard.press('Enter')
      }
      assert.deepEqual(hub.writes, [], 'nothing that is refused already is sent')
      await shot(page, 'server-name-refused')

      await field.fill('ann-tv')
      await page.getByRole('status').filter({ hasText: 'ann-tv.hub.localhost: it is free.' }).waitFor()
      await shot(page, 'server-name-free')
      // Somebody else was faster.
      hub.faults.push({ match: /POST .*names$/, status: 409, body: { code: 'name.taken', message: 'Somebody else has this name.' } })
      await page.keyboard.press('Enter')
      await page.getByText('Somebody else has this name.').first().waitFor()
      await page.keyboard.press('Enter')
      await page.getByText('ann-tv.hub.localhost leads here now.').waitFor()
      assert.equal(await field.inputValue(), '')
      const link = page.getByRole('link', { name: /^ann-tv\.hub\.localhost/ })
      assert.equal(await link.getAttribute('href'), 'https://ann-tv.hub.localhost:8443/')
      await shot(page, 'server-names')

      // Removing asks first, and says what becomes of it.
      await page.getByRole('button', { name: 'Remove ann-tv.hub.localhost' }).click()
      await page.getByRole('dialog', { name: 'Remove ann-tv.hub.localhost?' }).waitFor()
      await page.getByText('reserved for you for 120 days').waitFor()
      await shot(page, 'server-name-remove')
      await page.keyboard.press('Escape')
      await page.getByRole('dialog').waitFor({ state: 'detached' })
      assert.match(await focused(page), /^button: Remove/)
      await page.keyboard.press('Enter')
      await page.getByRole('button', { name: 'Remove this name' }).click()
      await link.waitFor({ state: 'detached' })
      assert.deepEqual(server.detail.names.map(({ host }) => host), [given])

      // As many as it can have.
      for (const label of ['one-a', 'two-b', 'three-c', 'four-d', 'five-e']) {
        await field.fill(label)
        await page.getByRole('status').filter({ hasText: 'it is free' }).waitFor()
        await page.keyboard.press('Enter')
        await page.getByRole('link', { name: new RegExp(`^${label}`) }).waitFor()
      }
      await page.getByText('It has all the names it can have (5 of your choice).').waitFor()
      assert.equal(await field.count(), 0)
      await page.setViewportSize({ width: 360, height: 740 })
      await fits(page)
      await shot(page, 'server-names-narrow')
    },
  },
  {
    name: 'the-owner-turns-the-guard-off-and-on',
    expected: [REFUSED],
    async tell(world) {
      const { hub, page } = world
      const account = hub.addAccount('ada', 'correct horse')
      const server = makeServer('Living room')
      account.servers.push(server)
      await enter(world, account)
      await page.goto(`/app/servers/${server.info.serverId}`)
      const guard = page.getByRole('switch', { name: 'Refuse what is meant for people at home' })
      assert.equal(await guard.isChecked(), true)
      hub.faults.push({ match: /^PUT/, status: 503, body: { message: 'Not now.' } })
      await guard.press('Space')
      await page.getByRole('alert').filter({ hasText: 'Not now.' }).waitFor()
      assert.equal(await guard.isChecked(), true, 'it shows what is, not what was wanted')
      await guard.press('Space')
      await page.getByText('It is off: whoever gets through').waitFor()
      assert.equal(await guard.isChecked(), false)
      assert.equal(server.detail.server.guard_local_paths, false)
      await shot(page, 'server-guard-off')
      await guard.click()
      await page.getByText('It is off: whoever gets through').waitFor({ state: 'detached' })
      assert.equal(server.detail.server.guard_local_paths, true)
    },
  },
  {
    name: 'a-server-without-a-name-says-so',
    async tell(world) {
      const { hub, page } = world
      const account = hub.addAccount('ada', 'correct horse')
      const server = makeServer('Living room')
      server.detail.names = []
      server.detail.server.url = server.detail.server.fqdn = server.detail.server.subdomain = null
      server.access.relay_url = null
      account.servers.push(server)
      await enter(world, account)
      await page.goto(`/app/servers/${server.info.serverId}`)
      await page.getByText('It has no name, so nobody can reach it through the hub.').waitFor()
      await page.getByLabel('Add a name').waitFor()
      await fits(page)
    },
  },
  {
    name: 'a-server-is-removed-only-after-a-yes',
    async tell(world) {
      const { hub, page } = world
      const account = hub.addAccount('ada', 'correct horse')
      const server = makeServer('Living room')
      account.servers.push(server)
      await enter(world, account)
      await page.goto(`/app/servers/${server.info.serverId}`)
      await page.getByRole('button', { name: 'Remove this server' }).click()
      await page.getByRole('dialog', { name: 'Remove Living room?' }).waitFor()
      assert.equal(await focused(page), 'button: Cancel')
      await shot(page, 'server-remove')
      await page.getByRole('button', { name: 'Cancel' }).click()
      assert.equal(account.servers.length, 1)
      await page.getByRole('button', { name: 'Remove this server' }).click()
      await page.getByRole('button', { name: 'Remove', exact: true }).click()
      await page.getByText('Living room was removed.').waitFor()
      await page.getByRole('heading', { name: 'No server yet' }).waitFor()
      assert.equal(account.servers.length, 0)
    },
  },
  {
    name: 'claims-are-refused-in-words',
    expected: [REFUSED],
    async tell(world) {
      const { hub, page } = world
      await enter(world, hub.addAccount('ada', 'correct horse'))
      hub.addClaim('GGGG-GGGG', makeServer('Gone'))
      hub.addClaim('TTTT-TTTT', makeServer('Taken'))
      hub.addClaim('RRRR-RRRR', makeServer('Racing'))
      for (const [code, state] of /** @type {const} */ ([['GGGG-GGGG', 'expired'], ['TTTT-TTTT', 'claimed']])) {
        const claim = hub.claims.get(code)
        if (claim) claim.state = state
      }
      await page.goto('/app/claim?code=NNNN-NNNN')
      await page.getByText('No server asks with this code.').waitFor()
      await shot(page, 'claim-refused')
      await page.getByRole('button', { name: 'Enter another code' }).click()
      await page.getByLabel('Claim code').fill('gggg gggg')
      await page.keyboard.press('Enter')
      await page.getByText('This code has expired.').waitFor()
      await page.goto('/app/claim?code=TTTT-TTTT')
      await page.getByText('already claimed').waitFor()

      // Someone else was faster, between the look and the yes.
      await page.goto('/app/claim?code=RRRR-RRRR')
      await page.getByRole('heading', { name: 'Is this your server?' }).waitFor()
      hub.faults.push({ match: /POST .*claim$/, status: 429, body: { code: 'rate_limited' }, headers: { 'Retry-After': '300' } })
      await page.getByRole('button', { name: 'Claim this server' }).click()
      await page.getByText('Try again in 5 minutes.').waitFor()
      const racing = hub.claims.get('RRRR-RRRR')
      if (racing) racing.state = 'claimed'
      await page.getByRole('button', { name: 'Claim this server' }).click()
      await page.getByText('This server was already claimed.').waitFor()
    },
  },
  {
    name: 'a-hub-without-previews-still-claims-by-code',
    expected: [REFUSED],
    async tell(world) {
      const { hub, page } = world
      await enter(world, hub.addAccount('ada', 'correct horse'))
      hub.addClaim('ABCD-EFGH', makeServer('Living room'))
      hub.faults.push({ match: /preview/, status: 404, body: { error: 'Not Found', message: 'The requested resource was not found' } })
      await page.goto('/app/claim?code=ABCD-EFGH')
      await page.getByRole('button', { name: 'Claim this server' }).click()
      await page.getByRole('heading', { name: 'Living room' }).waitFor()
    },
  },
  {
    name: 'sign-in-leads-on-to-a-name-and-never-to-a-stranger',
    expected: [REFUSED],
    async tell({ hub, page }) {
      hub.addAccount('ada', 'correct horse')
      const next = '/authorize-name?host=ab12cd34.hub.localhost&state=s&challenge=c'
      await page.goto(`/app/login?next=${encodeURIComponent(next)}`)
      await page.getByText('to continue to ab12cd34.hub.localhost').waitFor()
      await shot(page, 'login-for-name')
      await page.getByLabel('Username or e-mail').fill('ada')
      await page.getByLabel('Password').fill('wrong horse')
      await page.getByRole('button', { name: 'Sign in' }).click()
      await page.getByRole('alert').filter({ hasText: 'That name and password do not match.' }).waitFor()
      await shot(page, 'login-refused')
      await page.getByLabel('Password').fill('correct horse')
      await page.getByRole('button', { name: 'Sign in' }).click()
      await page.waitForURL(`**${next}`)
      assert.deepEqual(hub.visited, [next])

      // Signed in already: straight on, but for evil straight home.
      await page.goto(`/app/login?next=${encodeURIComponent(next)}`)
      await page.waitForURL(`**${next}`)
      for (const evil of ['https://evil.example/', '//evil.example/', '/\\evil.example/', '/\t/evil.example/', 'javascript:alert(1)']) {
        await page.goto(`/app/login?next=${encodeURIComponent(evil)}`)
        await page.waitForURL('**/app/servers')
      }
    },
  },
  {
    name: 'a-session-that-ends-asks-to-sign-in-again',
    expected: [REFUSED],
    async tell(world) {
      const { hub, page } = world
      const account = hub.addAccount('ada', 'correct horse')
      const server = makeServer('Living room')
      account.servers.push(server)
      await enter(world, account)
      await page.goto('/app/servers')
      await page.getByRole('link', { name: 'Living room' }).waitFor()
      hub.sessions.clear()
      await page.getByRole('link', { name: 'Living room' }).click()
      await page.waitForURL(/\/app\/login\?next=/)
      await page.getByLabel('Username or e-mail').fill('ada')
      await page.getByLabel('Password').fill('correct horse')
      await page.keyboard.press('Enter')
      await page.waitForURL(`**/app/servers/${server.info.serverId}`)

      await page.getByRole('button', { name: 'Sign out' }).click()
      await page.waitForURL('**/app/login')
      await page.goto('/app/servers')
      await page.waitForURL(/\/app\/login\?next=/)
    },
  },
  {
    name: 'an-absent-hub-is-an-error-and-not-a-sign-out',
    expected: [REFUSED, /net::ERR_/],
    async tell(world) {
      const { hub, page, context } = world
      await enter(world, hub.addAccount('ada', 'correct horse'))
      await page.goto('/app/servers')
      await page.getByRole('heading', { name: 'No server yet' }).waitFor()
      hub.faults.push({ match: /GET .*\/me\/servers/, status: 503, body: { code: 'provider_unavailable' } })
      await page.reload()
      await page.getByText('Your servers could not be read').waitFor()
      await shot(page, 'servers-error')
      await page.getByRole('button', { name: 'Try again' }).click()
      await page.getByRole('heading', { name: 'No server yet' }).waitFor()

      await context.route('**/api/**', (route) => route.abort())
      await page.reload()
      await page.getByText('The hub does not answer').waitFor()
      await shot(page, 'unreachable')
      await context.unroute('**/api/**')
      await page.getByRole('button', { name: 'Try again' }).click()
      await page.getByRole('heading', { name: 'No server yet' }).waitFor()
    },
  },
  {
    name: 'hostile-names-stay-text',
    async tell(world) {
      const { hub, page, context } = world
      const account = hub.addAccount(HOSTILE.slice(0, 50), 'correct horse')
      const server = makeServer(HOSTILE, { directUrl: 'javascript:alert(5)', relayUrl: 'javascript:alert(6)', version: HOSTILE.slice(0, 32) })
      account.servers.push(server)
      hub.addClaim('EVIL-EVIL', makeServer(HOSTILE), HOSTILE)
      await enter(world, account)
      for (const path of ['/app/servers', `/app/servers/${server.info.serverId}`, '/app/claim?code=EVIL-EVIL']) {
        await page.goto(path)
        await page.getByText('<script>alert(2)</script>').first().waitFor()
        await shot(page, `hostile-${path.split(/[/?]/)[2]}${path.length > 20 ? '-one' : ''}`)
        const made = await page.evaluate(
          () =>
            document.querySelectorAll('main img, main script, main svg, [onerror], [onload], a[href^="javascript:" i]').length,
        )
        assert.equal(made, 0, `${path} made markup of a name`)
        await fits(page)
      }
      await page.goto(`/app/servers/${server.info.serverId}`)
      await page.getByText('No tunnel is up').waitFor()
      assert.equal(context.pages().length, 1)
    },
  },
  {
    name: 'the-csp-holds',
    expected: [/Content Security Policy/],
    async tell(world) {
      const { hub, page } = world
      hub.trustedTypes = false
      await enter(world, hub.addAccount('ada', 'correct horse'))
      await page.goto('/app/servers')
      await page.getByRole('heading', { name: 'No server yet' }).waitFor()
      const ran = await page.evaluate(async () => {
        const inline = document.createElement('script')
        inline.textContent = 'window.ran = 1'
        document.head.append(inline)

        const button = document.createElement('button')
        button.setAttribute('onclick', 'window.ran = 2')
        document.body.append(button)
        button.click()

        // What the hub itself serves outside /app/assets/ is no script either.
        const foreign = document.createElement('script')
        foreign.src = '/api/v1/me?callback=x'
        const refused = new Promise((resolve) => foreign.addEventListener('error', () => resolve('refused')))
        document.head.append(foreign)
        return [Reflect.get(window, 'ran'), await refused]
      })
      assert.deepEqual(ran, [undefined, 'refused'])
    },
  },
  {
    name: 'keyboard-alone-is-enough',
    expected: [REFUSED],
    async tell({ hub, page }) {
      const account = hub.addAccount('ada', 'correct horse')
      account.servers.push(makeServer('Living room'))
      await page.goto('/app/servers')
      await page.getByLabel('Username or e-mail').waitFor()
      assert.equal(await focused(page), 'input: Username or e-mail')
      await page.keyboard.type('ada')
      await page.keyboard.press('Tab')
      await page.keyboard.type('correct horse')
      await page.keyboard.press('Enter')
      await page.getByRole('heading', { name: 'My servers' }).waitFor()
      assert.equal(await focused(page), 'h1: My servers')
      await page.getByRole('link', { name: 'Living room' }).waitFor()

      /** @type {string[]} */
      const order = []
      for (let step = 0; step < 2; step += 1) {
        await page.keyboard.press('Tab')
        order.push(await focused(page))
      }
      assert.deepEqual(order, ['a: Claim a server', 'a: Living room'])
      await page.keyboard.press('Enter')
      await page.getByRole('heading', { name: 'Living room' }).waitFor()
      await page.keyboard.press('Tab')
      await page.keyboard.press('Shift+Tab')

      // The skip link comes first and leads past the bar.
      await page.reload()
      await page.getByRole('heading', { name: 'Living room' }).waitFor()
      await page.keyboard.press('Tab')
      assert.equal(await focused(page), 'a: Skip to content')
      await page.keyboard.press('Enter')
      assert.equal(await focused(page), 'h1: Living room')
    },
  },
  {
    name: 'a-phone-in-the-dark',
    options: { viewport: { width: 360, height: 740 }, colorScheme: 'dark', isMobile: true, hasTouch: true },
    async tell(world) {
      const { hub, page } = world
      const account = hub.addAccount('a-person-with-a-rather-long-user-name', 'correct horse')
      const server = makeServer('A server with a name that is longer than the screen of a phone is wide')
      account.servers.push(server, makeServer('Attic', { online: false }))
      hub.addClaim('ABCD-EFGH', makeServer('Cellar'))
      await enter(world, account)
      for (const [name, path] of [['servers', '/app/servers'], ['server', `/app/servers/${server.info.serverId}`], ['claim', '/app/claim?code=ABCD-EFGH'], ['not-found', '/app/no/such/page']]) {
        await page.goto(path ?? '')
        await page.locator('main .card').first().waitFor()
        await fits(page)
        await shot(page, `phone-${name}`)
      }
    },
  },
  {
    name: 'an-unknown-page-and-an-unknown-server',
    expected: [REFUSED],
    async tell(world) {
      const { hub, page } = world
      await enter(world, hub.addAccount('ada', 'correct horse'))
      await page.goto('/app/no/such/page')
      await page.getByText('There is no page at this address').waitFor()
      assert.equal(await page.title(), 'Not found · Phlix Hub')
      await shot(page, 'not-found')
      await page.goto('/app/servers/0b0e5a55-0000-4000-8000-000000000001')
      await page.getByText('You have no such server').waitFor()
      await page.getByRole('main').getByRole('link', { name: 'My servers' }).first().click()
      await page.getByRole('heading', { name: 'No server yet' }).waitFor()
    },
  },
]
