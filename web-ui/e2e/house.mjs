/**
 * What the stories on a real hub share: who takes part, and the way from the
 * hub to a server's page. The environment is told at the top of each story.
 */
import { complaintsOf, launch, shot } from './browser.mjs'

/** @import { Browser, BrowserContext, Page } from 'playwright-core' */

/** The agent claims, dials and proves itself within this, on a busy machine. */
const TUNNEL_MS = 60_000
const STEP_MS = 30_000

/** @typedef {{ context: BrowserContext, page: Page, complaints: string[] }} Person */

export class House {
  hub = new URL(required('HUB_URL')).origin
  user = required('USER')
  password = required('PASSWORD')
  link = process.env.CLAIM_LINK ?? `${this.hub}/claim-server?code=${encodeURIComponent(required('CLAIM_CODE'))}`

  /** @type {Page | undefined} */
  shown
  /** @type {Person[]} */
  #people = []
  #browser

  /** @param {Browser} browser */
  constructor(browser) {
    this.#browser = browser
  }

  /** Each person has their own browser profile. @returns {Promise<Person>} */
  async person() {
    const context = await this.#browser.newContext()
    context.setDefaultTimeout(STEP_MS)
    const complaints = complaintsOf(context, [/server responded with a status of (401|403)/])
    const page = await context.newPage()
    this.shown = page
    const person = { context, page, complaints }
    this.#people.push(person)
    return person
  }

  /** @param {Page} page @param {string} name */
  async signUp(page, name) {
    await page.goto(`${this.hub}/app/signup`)
    await page.getByLabel('Username').fill(name)
    await page.getByLabel('E-mail').fill(`${name}@example.org`)
    await page.getByLabel('Password').fill(this.password)
    await page.getByRole('button', { name: 'Sign up' }).click()
    await page.waitForURL('**/app/servers')
  }

  /** From the link to the server's page; its id. @param {Page} page */
  async claim(page) {
    await page.goto(this.link)
    await page.getByRole('heading', { name: 'Is this your server?' }).waitFor()
    await shot(page, 'story-claim')
    await page.getByRole('button', { name: 'Claim this server' }).click()
    await page.waitForURL(/\/app\/servers\/[0-9a-f-]{36}$/)
    return page.url().split('/').at(-1) ?? ''
  }

  /** Clicks *Open* once the tunnel is up: the new tab, at rest on the server's name. @param {Person} person */
  async open({ context, page }) {
    const open = page.getByRole('link', { name: /^Open/ })
    await open.waitFor({ timeout: TUNNEL_MS })
    await shot(page, 'story-server')
    const address = new URL((await open.getAttribute('href')) ?? '')
    const [tab] = await Promise.all([context.waitForEvent('page'), open.click()])
    this.shown = tab
    await this.landed(tab, address.origin)
    return { tab, address }
  }

  /** Waits until the browser came to rest on the server's name. @param {Page} page @param {string} name */
  async landed(page, name) {
    await page.waitForURL((url) => url.origin === name && !url.pathname.startsWith('/.phlix/'))
  }

  /** The origin's own sign-in, when it has one and we were told how. @param {Page} page */
  async passOrigin(page) {
    if (process.env.ORIGIN_USER) {
      const secret = page.locator('input[type=password]')
      await secret.waitFor()
      await page.locator('form input:not([type=password]):not([type=hidden]):not([type=submit])').first().fill(process.env.ORIGIN_USER)
      await secret.fill(process.env.ORIGIN_PASSWORD ?? '')
      await Promise.all([page.waitForEvent('load'), secret.press('Enter')])
    }
    if (process.env.PLAYER_PATH) await page.goto(new URL(process.env.PLAYER_PATH, page.url()).href)
  }

  /** What the hub's own pages complained of; a server's pages may complain of what they like. */
  complaints() {
    return this.#people
      .flatMap(({ complaints }) => complaints)
      .filter((complaint) => complaint.includes(`(${this.hub}`))
  }
}

/**
 * Tells a story and prints what came of it in one line of JSON; exits 0 only
 * when everything held.
 * @param {(house: House, result: Record<string, unknown>, step: (name: string) => void) => Promise<void>} tell
 */
export async function story(tell) {
  /** @type {Record<string, unknown>} */
  const result = { ok: false, step: 'launch' }
  const started = Date.now()
  const browser = await launch()
  const house = new House(browser)
  try {
    await tell(house, result, (name) => {
      result.step = name
    })
    result.ok = true
    delete result.step
  } catch (error) {
    result.error = error instanceof Error ? error.message : String(error)
    result.at = house.shown?.url()
    if (house.shown) await shot(house.shown, `story-failed-${result.step}`).catch(() => undefined)
  } finally {
    await browser.close()
  }
  result.ms = Date.now() - started
  console.log(JSON.stringify(result))
  process.exitCode = result.ok ? 0 : 1
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
