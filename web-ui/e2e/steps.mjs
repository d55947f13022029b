/** What stories on the mock hub have in common. */
import assert from 'node:assert/strict'

/**
 * @import { BrowserContext, BrowserContextOptions, Page } from 'playwright-core'
 * @import { Account, MockHub } from './mock-hub.mjs'
 * @typedef {{ hub: MockHub, page: Page, context: BrowserContext }} World
 * @typedef {{ name: string, expected?: RegExp[], options?: BrowserContextOptions, tell: (world: World) => Promise<void> }} Story
 */

/** The browser logs each refused call by itself. */
export const REFUSED = /Failed to load resource: the server responded with a status of \d+/

/** Text that would do something anywhere but in a text node. */
export const HOSTILE = `"><img src=x onerror="alert(1)"><script>alert(2)</script>{{constructor.constructor('alert(3)')()}}<svg onload=alert(4)>`

/** Signed in without the form. @param {World} world @param {Account} account */
export async function enter({ hub, context }, account) {
  hub.sessions.set('test-session', account)
  await context.addCookies([
    { name: '__Host-phlix-s', value: 'test-session', domain: 'localhost', path: '/', secure: true, httpOnly: true, sameSite: 'Lax' },
  ])
}

/** @param {Page} page */
export async function focused(page) {
  return page.evaluate(() => {
    const element = document.activeElement
    const label = element instanceof HTMLInputElement ? element.labels?.[0]?.textContent : element?.textContent
    return `${element?.tagName.toLowerCase()}: ${label?.trim()}`
  })
}

/** Nothing wider than the window. @param {Page} page */
export async function fits(page) {
  const content = await page.evaluate(() => document.documentElement.scrollWidth)
  const window = page.viewportSize()?.width ?? 0
  assert.ok(content <= window, `the page is ${content} px wide in a window of ${window} px`)
}
