/**
 * An unmodified Phlix server in a browser: claim it by its link, browse what
 * it has on the hub's own pages, see its posters, play and seek a real video,
 * hold its tunnel to TLS and let go again. Its tunnel comes without TLS.
 *
 * Runs against a real hub; environment as story-play.mjs, and
 *   ITEM         the item to play; else the first film of the first library
 *   ITEM_POSTER  `none` where the items have no pictures
 */
import assert from 'node:assert/strict'
import { shot } from './browser.mjs'
import { story } from './house.mjs'
import { play } from './playing.mjs'

/** The server dials again within this after it was claimed. */
const TUNNEL_MS = 60_000

await story(async (house, result, step) => {
  const { hub, user } = house

  step('sign_up')
  const { context, page } = await house.person()
  await house.signUp(page, user)

  step('claim')
  const id = (result.server_id = await house.claim(page))

  step('browse')
  const browse = page.getByRole('link', { name: 'Browse' })
  await browse.waitFor({ timeout: TUNNEL_MS })
  await shot(page, 'legacy-server')
  /** @type {string[]} */
  const asked = []
  context.on('request', (request) => asked.push(request.url()))
  await browse.click()
  await page.getByRole('list', { name: 'Libraries' }).getByRole('link').first().click()
  const shelf = page.locator('.media')
  await shelf.first().waitFor()
  result.items = await shelf.count()
  if (process.env.ITEM_POSTER !== 'none') {
    await page.waitForFunction(() => Array.from(document.querySelectorAll('img')).some((image) => image.naturalWidth > 0))
  }
  await shot(page, 'legacy-library')

  step('open')
  const links = shelf.getByRole('link')
  const link = process.env.ITEM ? page.locator(`main a[href$="/play/${process.env.ITEM}"]`) : links.first()
  await link.click()
  await page.waitForURL(/\/play\/[\w-]+$/)

  step('play')
  result.video = await play(page)

  step('where_from')
  // Every byte came from the hub itself, on the proxy path: no other host was asked.
  const elsewhere = asked.filter((url) => new URL(url).origin !== hub)
  assert.deepEqual(elsewhere, [])
  const stream = asked.find((url) => /\/media\/[\w-]+\/stream/.test(url))
  assert.ok(stream?.startsWith(`${hub}/api/v1/servers/${id}/proxy/media/`), `the video came from ${stream}`)

  step('sandbox')
  result.as_a_page = await asAPage(page, stream ?? '')

  step('back')
  await page.getByRole('link', { name: 'Back to the library' }).click()
  await shelf.first().waitFor()

  // Its tunnel has no TLS: the owner's word cuts it off, and lets it in again.
  step('tls_only')
  await page.goto(`${hub}/app/servers/${id}`)
  await browse.waitFor()
  const tls = page.getByRole('switch', { name: 'Take encrypted connections only' })
  assert.equal(await tls.isChecked(), false)
  await tls.click()
  await page.getByRole('button', { name: 'Take encrypted only' }).click()
  await page.getByText('No tunnel is up').waitFor({ timeout: TUNNEL_MS })
  await shot(page, 'legacy-tls-only')
  step('tls_given_up')
  await tls.click()
  await page.getByRole('button', { name: 'Allow them' }).click()
  await browse.waitFor({ timeout: TUNNEL_MS })

  step('complaints')
  assert.deepEqual(house.complaints(), [])
})

/** What the server answers is no page of the hub's: opened as one, it is refused. @param {import('playwright-core').Page} page @param {string} url */
async function asAPage(page, url) {
  const tab = await page.context().newPage()
  try {
    const answer = await tab.goto(url).catch(() => undefined)
    assert.ok(!answer?.ok(), `a proxied address opened as a page with ${answer?.status()}`)
    return answer?.status() ?? 'refused'
  } finally {
    await tab.close()
  }
}
