/** What a person does with a Phlix server in the UI: browse, search, play, and what they see when that fails. */
import assert from 'node:assert/strict'
import { shot } from './browser.mjs'
import { FILMS, MockHome, SERIES } from './mock-home.mjs'
import { makeServer, tell } from './mock-hub.mjs'
import { enter, fits, focused, HOSTILE, REFUSED } from './steps.mjs'

/** @import { Page } from 'playwright-core' */
/** @import { Story, World } from './steps.mjs' */

/** A signed-in owner of one Phlix server with 60 films and a series. @param {World} world */
async function atHome(world) {
  const account = world.hub.addAccount('ada', 'correct horse')
  const server = makeServer('Living room', { kind: 'phlix', version: '0.97.3' })
  account.servers.push(server)
  const home = new MockHome()
  world.hub.homes.set(server.info.serverId, home)
  const series = home.add({ name: 'A Series', type: 'series', library_id: SERIES })
  const season = home.add({ name: 'Season 1', type: 'season', library_id: SERIES, parent_id: series.id })
  home.add({ name: 'Pilot', type: 'episode', library_id: SERIES, parent_id: season.id, season_number: 1, episode_number: 1 })
  for (let film = 0; film < 60; film += 1) home.add()
  await enter(world, account)
  return { home, server, at: `/app/servers/${server.info.serverId}` }
}

/** @param {Page} page */
const video = (page) => page.locator('video')

/** Waits until it shows something beyond this second. @param {Page} page @param {number} second */
async function passes(page, second) {
  await page.waitForFunction((past) => {
    const element = document.querySelector('video')
    return element !== null && !element.seeking && element.currentTime > past
  }, second)
}

/** @type {Story[]} */
export const stories = [
  {
    name: 'a-phlix-server-is-browsed-from-its-page-to-the-player',
    async tell(world) {
      const { page } = world
      const { home, at } = await atHome(world)
      await page.goto(at)
      await page.getByText('Phlix server').waitFor()
      await page.getByRole('link', { name: 'Browse' }).click()
      await page.getByRole('heading', { name: 'Living room' }).waitFor()
      await page.getByText('Films, 60 items').waitFor()
      await page.getByRole('region', { name: 'Recently added' }).getByRole('link', { name: 'Film 63', exact: true }).waitFor()
      await page.waitForFunction(() => Array.from(document.querySelectorAll('.poster img')).slice(0, 6).every((image) => image instanceof HTMLImageElement && image.naturalWidth > 0))
      await fits(page)
      await shot(page, 'browse-start')
      // The server's signature goes back to it as it came.
      assert.ok(home.seen.some((path) => /^\/api\/v1\/artwork\/[\w-]+\?size=w342&exp=1790000000&sig=s\d+$/.test(path)), 'no poster was asked for')

      await page.getByRole('link', { name: 'Films', exact: true }).click()
      await page.getByText('1–48 of 60').waitFor()
      await shot(page, 'browse-library')
      assert.equal(await focused(page), 'h1: Films')
      assert.equal(await page.getByRole('link', { name: 'Previous' }).count(), 0)
      await page.getByRole('link', { name: 'Next' }).click()
      await page.getByText('49–60 of 60').waitFor()
      assert.match(page.url(), /\/browse\?library=[\w-]+&page=2$/)
      assert.equal(await page.getByRole('link', { name: 'Next' }).count(), 0)
      await page.goBack()
      await page.getByText('1–48 of 60').waitFor()

      await page.getByRole('searchbox', { name: 'Search Films' }).fill('film 1')
      await page.keyboard.press('Enter')
      await page.getByRole('heading', { name: 'Search for “film 1”' }).waitFor()
      await page.getByText('1–10 of 10').waitFor()
      await shot(page, 'browse-search')
      await page.getByRole('searchbox').fill('nowhere to be found')
      await page.getByRole('button', { name: 'Search' }).click()
      await page.getByRole('heading', { name: 'Nothing found' }).waitFor()

      await page.getByRole('link', { name: 'Films', exact: true }).click()
      await page.getByRole('link', { name: 'Libraries' }).click()
      await page.getByRole('link', { name: 'Series', exact: true }).click()
      await page.getByRole('link', { name: 'A Series' }).click()
      await page.getByRole('link', { name: 'Season 1' }).click()
      await page.getByText('Season 1, episode 1').waitFor()
      await page.getByRole('link', { name: 'Up' }).waitFor()
      await page.getByRole('link', { name: 'Pilot' }).click()
      await page.waitForURL(/\/play\/[\w-]+$/)
      await page.getByRole('heading', { name: 'Pilot' }).waitFor()
      assert.equal(await page.title(), 'Pilot · Phlix Hub')
      await video(page).waitFor()
      await page.getByRole('link', { name: 'Back to the library' }).click()
      await page.getByRole('heading', { name: 'Season 1' }).waitFor()
    },
  },
  {
    name: 'the-player-plays-seeks-and-obeys-the-keyboard',
    async tell(world) {
      const { page } = world
      const { home, at } = await atHome(world)
      const film = home.items.at(-1)
      await page.goto(`${at}/play/${film?.id}`)
      await page.getByRole('heading', { name: film?.name ?? '' }).waitFor()
      await page.waitForFunction(() => (document.querySelector('video')?.readyState ?? 0) >= 1)
      assert.ok(home.seen.includes(`/media/${film?.id}/stream?exp=1790000000&sig=zz`))
      await shot(page, 'player')
      await page.getByRole('heading', { name: film?.name ?? '' }).focus()
      await page.keyboard.press('Space')
      await passes(page, 0.3)
      await page.keyboard.press('m')
      assert.equal(await video(page).evaluate((/** @type {HTMLVideoElement} */ element) => element.muted), true)
      await page.keyboard.press('ArrowRight')
      await passes(page, 10)
      await page.keyboard.press('k')
      assert.equal(await video(page).evaluate((/** @type {HTMLVideoElement} */ element) => element.paused), true)

      await page.getByRole('button', { name: 'Two' }).click()
      await passes(page, 60.2)
      assert.equal(await focused(page), 'video: ')
      // The controls are the browser's own: Tab leads on.
      assert.equal(await video(page).evaluate((/** @type {HTMLVideoElement} */ element) => element.controls), true)
    },
  },
  {
    name: 'a-stream-that-breaks-goes-on-where-it-was',
    expected: [REFUSED, /net::ERR_/],
    async tell(world) {
      const { page } = world
      const { home, at } = await atHome(world)
      const film = home.items.at(-1)
      await page.goto(`${at}/play/${film?.id}`)
      await page.waitForFunction(() => (document.querySelector('video')?.readyState ?? 0) >= 1)
      await video(page).evaluate((/** @type {HTMLVideoElement} */ element) => element.play())
      await passes(page, 0.3)
      // The home goes away, and somebody seeks into what is not here yet.
      home.refuses = { match: /^\//, status: 503, body: { error: 'x', code: 'server.offline', message: 'x' } }
      await video(page).evaluate((/** @type {HTMLVideoElement} */ element) => (element.currentTime = 90))
      await page.getByRole('heading', { name: 'This server is offline' }).waitFor()
      await shot(page, 'player-offline')
      const again = page.getByRole('button', { name: 'Go on at 1:30' })
      await again.click()
      // Not back yet: it says so again and still knows where it was.
      await page.getByRole('heading', { name: 'This server is offline' }).waitFor()
      home.refuses = undefined
      await again.click()
      await passes(page, 90.2)
      assert.equal(await page.getByRole('heading', { name: 'This server is offline' }).count(), 0)
      assert.equal(await focused(page), 'video: ')
    },
  },
  {
    name: 'a-stream-that-falls-silent-is-loaded-again',
    async tell(world) {
      const { page } = world
      const { home, at } = await atHome(world)
      const film = home.items.at(-1)
      // From the middle on there is nothing.
      home.silentFrom = 10_000_000
      await page.clock.install()
      await page.goto(`${at}/play/${film?.id}`)
      await page.waitForFunction(() => (document.querySelector('video')?.readyState ?? 0) >= 1)
      await video(page).evaluate(async (/** @type {HTMLVideoElement} */ element) => {
        await element.play()
        const waits = new Promise((resolve) => element.addEventListener('waiting', resolve, { once: true }))
        element.currentTime = 90
        await waits
      })
      await page.clock.fastForward(9_000)
      assert.equal(await page.getByText('Nothing has come for a while').count(), 0)
      await page.clock.fastForward(2_000)
      await page.getByText('Nothing has come for a while').waitFor()
      await shot(page, 'player-slow')
      home.silentFrom = undefined
      await page.getByRole('button', { name: 'Load it again' }).click()
      await passes(page, 90.2)
      assert.equal(await page.getByText('Nothing has come for a while').count(), 0)

      // Who leaves takes nothing more.
      await page.getByRole('link', { name: 'Back to the library' }).click()
      await page.getByText('1–48 of 60').waitFor()
      for (let turn = 0; home.streams > 0 && turn < 50; turn += 1) await page.evaluate(() => new Promise((resolve) => requestAnimationFrame(resolve)))
      assert.equal(home.streams, 0)
    },
  },
  {
    name: 'a-file-that-the-browser-does-not-know-is-no-broken-connection',
    async tell(world) {
      const { page } = world
      const { home, at } = await atHome(world)
      const film = home.add({ name: 'In 4K', streams: [{ stream_type: 'video', codec: 'hevc', width: 3840, height: 2160 }, { stream_type: 'audio', codec: 'dts' }] })
      home.otherBytes = Buffer.alloc(300_000, 'no video at all ')
      await page.goto(`${at}/play/${film.id}`)
      await page.getByRole('heading', { name: 'This browser cannot play this file' }).waitFor()
      await page.getByText('Its format: hevc 3840 × 2160, dts.').waitFor()
      assert.equal(await page.getByRole('button', { name: /Try again|Go on/ }).count(), 0)
      await shot(page, 'player-unknown-format')
    },
  },
  {
    name: 'what-a-phlix-server-does-not-give-is-told-apart',
    expected: [REFUSED],
    async tell(world) {
      const { page } = world
      const { home, at } = await atHome(world)
      /** @type {[number, object, string, Record<string, string>?][]} */
      const cases = [
        [503, { code: 'server.relay_unavailable' }, 'This server is not connected'],
        [403, { code: 'proxy.scope_denied' }, 'The hub does not pass this on'],
        [429, { code: 'rate_limited' }, 'Too many requests', { 'Retry-After': '42' }],
        [503, { error: { code: 'stream.limit' } }, 'Too many streams at once'],
        [504, { code: 'gateway.timeout' }, 'The server is slow to answer'],
        [401, { code: 'auth.required', error: 'Unauthorized' }, 'The server refuses this'],
        [500, { error: HOSTILE, message: HOSTILE }, 'The server has a problem'],
        [200, { hello: 'world' }, 'The server answered something else'],
      ]
      for (const [status, body, heading, headers] of cases) {
        home.refuses = { match: /^\//, status, body, ...(headers ? { headers } : {}) }
        await page.goto(`${at}/browse`)
        await page.getByRole('alert').getByRole('heading', { name: heading }).waitFor()
        assert.equal(await page.getByText('alert(').count(), 0)
      }
      // Offline passes, and the page finds out by itself.
      home.refuses = { match: /^\//, status: 503, body: { code: 'server.offline' } }
      await page.goto(`${at}/browse`)
      await page.getByText('This page looks again by itself.').waitFor()
      await shot(page, 'browse-offline')
      home.refuses = undefined
      await page.getByText('Films, 60 items').waitFor({ timeout: 15_000 })

      home.libraries = []
      home.items = []
      await page.reload()
      await page.getByRole('heading', { name: 'No library yet' }).waitFor()
      await shot(page, 'browse-empty')
      await page.goto(`${at}/browse?library=${FILMS}`)
      await page.getByRole('heading', { name: 'Nothing in here yet' }).waitFor()
      await page.goto(`${at}/play/aaaaaaaa-0000-4000-8000-00000000dead`)
      await page.getByRole('heading', { name: 'The server has nothing here' }).waitFor()
    },
  },
  {
    name: 'a-session-that-ends-while-browsing-asks-to-sign-in',
    expected: [REFUSED],
    async tell(world) {
      const { hub, page } = world
      const { at } = await atHome(world)
      await page.goto(`${at}/browse`)
      await page.getByText('Films, 60 items').waitFor()
      hub.sessions.clear()
      await page.getByRole('link', { name: 'Films', exact: true }).click()
      await page.waitForURL(/\/app\/login\?next=/)
      assert.match(new URL(page.url()).searchParams.get('next') ?? '', /\/browse\?library=/)
    },
  },
  {
    name: 'a-hostile-phlix-server-reaches-nothing',
    expected: [REFUSED],
    async tell(world) {
      const { hub, page, context } = world
      const { home, at } = await atHome(world)
      home.libraries = [{ id: FILMS, name: HOSTILE, type: HOSTILE, item_count: -1 }]
      home.items = []
      const urls = ['https://tracker.example/p.png', '//tracker.example/p.png', 'javascript:alert(5)', 'data:image/svg+xml,<svg onload=alert(6)>', '/api/v1/artwork/../../../../../../v1/me', '/api/v1/artwork/%2e%2e/%2e%2e/me', '/x" onerror="alert(7)']
      const items = urls.map((poster_url, index) => home.add({ name: `${HOSTILE} ${index}`, overview: HOSTILE, poster_url, backdrop_url: poster_url, genres: [HOSTILE], stream_url: poster_url }))
      home.add({ id: '../../me', name: 'Up and away' })
      /** @type {string[]} */
      const asked = []
      context.on('request', (request) => asked.push(request.url()))
      for (const path of [`${at}/browse`, `${at}/browse?library=${FILMS}`, `${at}/browse?library=${FILMS}&parent=${items[0]?.id}`, ...items.slice(0, 2).map(({ id }) => `${at}/play/${id}`)]) {
        await page.goto(path)
        await page.getByText('<script>alert(2)</script>').first().waitFor()
        const made = await page.evaluate(() => document.querySelectorAll('main script, main svg, main iframe, [onerror], [onload], main a[href^="javascript:" i]').length)
        assert.equal(made, 0, `${path} made markup of a name`)
        await fits(page)
      }
      await shot(page, 'player-hostile')
      const allowed = new RegExp(`^${hub.origin}/(?:app/|favicon|api/v1/(?:me|me/servers/[\\w-]+|servers/[\\w-]+/proxy/(?:api/v1/(?:libraries|media)|media/[\\w-]+/stream)[^%]*)$)`)
      assert.deepEqual(asked.filter((url) => !allowed.test(url)), [])
      assert.equal(context.pages().length, 1)
    },
  },
  {
    name: 'what-happened-to-a-server-is-told-until-it-is-dismissed',
    expected: [REFUSED],
    async tell(world) {
      const { hub, page } = world
      const { server, at } = await atHome(world)
      tell(server, { message: "This server's connection to the hub is not encrypted. Set PHLIX_RELAY_TLS=1 on the server.", detail: '203.0.113.7' })
      tell(server, { kind: 'tunnel.new_address', detail: '203.0.113.7 -> 198.51.100.20', times: 3, message: HOSTILE })
      tell(server, { kind: 'of.the.future' })
      await page.goto('/app/servers')
      const notices = page.getByRole('list', { name: 'What you should know' }).getByRole('listitem')
      await notices.first().waitFor()
      assert.equal(await notices.count(), 3)
      await page.getByText('203.0.113.7 -> 198.51.100.20').waitFor()
      await page.getByText('3 times since 2 hours ago').waitFor()
      assert.equal(await page.locator('main img').count(), 0)
      await fits(page)
      await shot(page, 'servers-notices')
      await page.getByRole('button', { name: 'Dismiss: Something to look at' }).click()
      await page.getByRole('heading', { name: 'Something to look at' }).waitFor({ state: 'detached' })
      assert.ok(hub.writes.some((line) => line.startsWith('DELETE /api/v1/me/notices/')))

      await page.getByRole('link', { name: 'Living room' }).first().click()
      await page.waitForURL(`**${at}`)
      await page.getByRole('heading', { name: 'Connected from a new address' }).waitFor()
      await shot(page, 'server-notices')
      // A refusal is said where it belongs, and the notice stays.
      hub.faults.push({ match: /^DELETE/, status: 503, body: { message: 'Not now.' } })
      await page.getByRole('button', { name: 'Dismiss: Connected without encryption' }).click()
      await page.getByRole('alert').filter({ hasText: 'Not now.' }).waitFor()
      await page.getByRole('button', { name: 'Dismiss: Connected without encryption' }).click()
      await page.getByRole('heading', { name: 'Connected without encryption' }).waitFor({ state: 'detached' })

      const suspected = notices.filter({ hasText: 'Connected from a new address' })
      await suspected.getByRole('button', { name: 'End its credentials' }).click()
      await page.getByRole('dialog', { name: 'End all its credentials?' }).waitFor()
      assert.equal(await focused(page), 'button: Cancel')
      assert.ok(!hub.writes.some((line) => line.endsWith('/roll-credentials')))
      await page.getByRole('button', { name: 'End them' }).click()
      await page.getByText('The credentials of Living room were ended.').waitFor()
      assert.ok(hub.writes.some((line) => line.endsWith('/roll-credentials')))
    },
  },
  {
    name: 'encryption-is-given-up-only-after-a-warning',
    async tell(world) {
      const { page } = world
      const { server, at } = await atHome(world)
      await page.goto(at)
      const guard = page.getByRole('switch', { name: 'Take encrypted connections only' })
      assert.equal(await guard.isChecked(), true)
      assert.equal(await page.getByRole('switch').count(), 1)
      await guard.click()
      await page.getByRole('dialog', { name: 'Allow connections without encryption?' }).waitFor()
      await shot(page, 'server-tls-warning')
      await page.getByRole('button', { name: 'Cancel' }).click()
      assert.equal(server.detail.server.tls_only, true)
      await guard.press('Space')
      await page.getByRole('button', { name: 'Allow them' }).click()
      await page.getByText('It is off: set PHLIX_RELAY_TLS=1').waitFor()
      assert.equal(server.detail.server.tls_only, false)
      assert.equal(await guard.isChecked(), false)
      await guard.click()
      await page.getByRole('button', { name: 'Take encrypted only' }).click()
      await page.getByText('It is off: set PHLIX_RELAY_TLS=1').waitFor({ state: 'detached' })
      assert.equal(server.detail.server.tls_only, true)
    },
  },
  {
    name: 'a-phlix-server-on-a-phone-in-the-dark',
    options: { viewport: { width: 360, height: 740 }, colorScheme: 'dark', isMobile: true, hasTouch: true },
    async tell(world) {
      const { page } = world
      const { home, server, at } = await atHome(world)
      tell(server, { kind: 'tunnel.new_address', detail: '2001:db8:1234:5678:9abc:def0:1234:5678 -> 2001:db8:ffff:5678:9abc:def0:1234:5678', times: 2, message: 'It was replaced from another address. If your home did not move, somebody may have a copy of its credentials.' })
      home.add({ name: 'A film with a name that is a good deal longer than what fits below a poster on a phone' })
      for (const [name, path] of [['servers', '/app/servers'], ['server', at], ['start', `${at}/browse`], ['library', `${at}/browse?library=${FILMS}`], ['player', `${at}/play/${home.items.at(-1)?.id}`]]) {
        await page.goto(path ?? '')
        await page.locator(name === 'player' ? 'video' : 'main li').first().waitFor()
        await fits(page)
        await shot(page, `phone-phlix-${name}`)
      }
    },
  },
]
