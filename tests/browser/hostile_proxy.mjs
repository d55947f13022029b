/**
 * A hostile media server's answers under the hub's own address, in the owner's
 * browser: as a page, a frame, a script, a worker, a style, a form's target.
 *
 * From the environment:
 *   HUB_URL                 the hub's public address
 *   SERVER                  the id of the owner's server, a double that answers what `behave=answer` says
 *   USER, PASSWORD          the owner's account
 *
 * Prints one line per finding; exits 0 only when everything held.
 */
import assert from 'node:assert/strict'
import { launch } from '../../web-ui/e2e/browser.mjs'

const { HUB_URL, SERVER, USER, PASSWORD } = process.env
const hub = new URL(HUB_URL).origin

/** An address of the hub that the server answers with this text as this type. */
const said = (type, text, more = {}) => {
  const query = new URLSearchParams({ behave: 'answer', type, text, ...more })
  return `${hub}/api/v1/servers/${SERVER}/proxy/api/v1/media?${query}`
}

// Whatever runs with the hub's origin takes the session's word and tells it.
const ACT = `localStorage.setItem('ran', '1'); document.title = 'ran'; fetch('/api/v1/me').then((a) => fetch('/ran?' + a.status))`
const PAGE = `<!doctype html><title>hostile</title><script>${ACT}</script><img src=x onerror="${ACT}">`
const SVG = `<svg xmlns="http://www.w3.org/2000/svg"><script>${ACT}</script></svg>`

const browser = await launch()
try {
  const context = await browser.newContext({ acceptDownloads: true })
  context.setDefaultTimeout(30_000)
  const page = await context.newPage()
  /** What a script that ran would ask for. */
  const asked = []
  context.on('request', (request) => {
    if (new URL(request.url()).pathname === '/ran') asked.push(request.url())
  })
  await page.goto(`${hub}/app/login`)
  await page.getByLabel(/Username/).fill(USER)
  await page.getByLabel('Password').fill(PASSWORD)
  await page.getByRole('button', { name: 'Sign in' }).click()
  await page.waitForURL('**/app/servers')
  const plain = await page.evaluate((url) => fetch(url).then((a) => a.text()), said('text/plain', 'hello'))
  assert.equal(plain, 'hello', 'the server is not reached, so nothing would be shown')

  for (const [what, type, text] of [
    ['a page', 'text/html', PAGE],
    ['a picture with a script', 'image/svg+xml', SVG],
    ['XHTML', 'application/xhtml+xml', `<html xmlns="http://www.w3.org/1999/xhtml"><script>${ACT}</script></html>`],
    ['text that looks like a page', 'text/plain', PAGE],
    ['no type that there is', 'x/y', PAGE],
  ]) {
    const tab = await context.newPage()
    // A download or a refusal ends the navigation; either is as good.
    await tab.goto(said(type, text)).catch(() => undefined)
    assert.notEqual(await tab.title(), 'ran', `${what} ran as a page`)
    await tab.close()
    const framed = await page.evaluate(async (src) => {
      const frame = document.createElement('iframe')
      frame.src = src
      const loaded = new Promise((resolve) => {
        frame.addEventListener('load', resolve, { once: true })
        setTimeout(resolve, 2000)
      })
      document.body.append(frame)
      await loaded
      const title = (() => {
        try {
          return frame.contentDocument?.title ?? null
        } catch {
          return null
        }
      })()
      frame.remove()
      return title
    }, said(type, text))
    assert.notEqual(framed, 'ran', `${what} ran in a frame`)
    console.log(`ok      ${what} runs neither as a page nor in a frame`)
  }

  const script = await page.evaluate(
    (src) =>
      new Promise((resolve) => {
        const element = document.createElement('script')
        try {
          element.src = src
        } catch {
          // The console takes no script's address from a string at all (Trusted Types).
          return resolve('refused')
        }
        element.addEventListener('load', () => resolve('loaded'))
        element.addEventListener('error', () => resolve('refused'))
        document.body.append(element)
      }),
    said('text/javascript', ACT),
  )
  assert.equal(script, 'refused')
  console.log('ok      a script of the server is not loaded')

  for (const kind of ['worker', 'module worker', 'shared worker', 'service worker']) {
    const outcome = await page.evaluate(
      async ([which, url]) => {
        try {
          if (which === 'service worker') {
            await navigator.serviceWorker.register(url, { scope: '/' })
            return 'registered'
          }
          const worker =
            which === 'shared worker'
              ? new SharedWorker(url)
              : new Worker(url, which === 'worker' ? {} : { type: 'module' })
          const port = worker.port ?? worker
          return await new Promise((resolve) => {
            worker.onerror = () => resolve('refused')
            port.onmessage = () => resolve('ran')
            setTimeout(() => resolve('silent'), 2000)
          })
        } catch {
          return 'refused'
        }
      },
      [kind, said('text/javascript', `postMessage(1); ${ACT}`, { 'h-Service-Worker-Allowed': '/' })],
    )
    assert.ok(['refused', 'silent'].includes(outcome), `a ${kind} of the server ${outcome}`)
    console.log(`ok      no ${kind} of the server runs`)
  }

  // A form of the server's page can't be posted as the owner: the page is none. A redirect leads nowhere.
  const led = await page.evaluate(
    (url) => fetch(url, { redirect: 'manual' }).then((a) => a.status),
    said('text/plain', '', { status: '302', 'h-Location': 'https://evil.example/' }),
  )
  assert.equal(led, 502)
  console.log('ok      a redirect to another place is refused')

  const cookies = (await context.cookies(hub)).map(({ name }) => name)
  await page.evaluate((url) => fetch(url).then((a) => a.text()), said('text/plain', '', { 'h-Set-Cookie': 'planted=1; Path=/' }))
  assert.deepEqual((await context.cookies(hub)).map(({ name }) => name), cookies, 'it set a cookie')
  console.log('ok      it sets no cookie')

  assert.equal(await page.evaluate(() => localStorage.getItem('ran')), null, 'something ran on the hub’s origin')
  assert.deepEqual(asked, [], 'something ran on the hub’s origin')
  await page.goto(`${hub}/app/servers`)
  assert.equal(new URL(page.url()).pathname, '/app/servers', 'the owner was signed out')
  console.log('ok      the owner is still signed in, and nothing has run')
} catch (error) {
  console.error(`FAILED  ${error instanceof Error ? error.stack : error}`)
  process.exitCode = 1
} finally {
  await browser.close()
}
