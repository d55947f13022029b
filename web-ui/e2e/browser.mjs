/**
 * A headless Chromium that trusts nobody: whatever it finds wrong (a console
 * error, an exception, a broken CSP rule) is collected as a complaint.
 */
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { chromium } from 'playwright-core'

const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--autoplay-policy=no-user-gesture-required',
]

export async function launch() {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    headless: true,
    args: FLAGS,
  })
}

/**
 * Collects what the page complains of. `expected` are patterns of console
 * errors that the story itself provokes (a 401 is logged by the browser).
 * @param {import('playwright-core').BrowserContext} context
 * @param {RegExp[]} [expected]
 * @returns {string[]}
 */
export function complaintsOf(context, expected = []) {
  /** @type {string[]} */
  const complaints = []
  /** @param {string} text */
  const complain = (text) => {
    if (!expected.some((pattern) => pattern.test(text))) complaints.push(text)
  }
  context.on('console', (message) => {
    if (message.type() === 'error' || message.type() === 'warning') {
      complain(`${message.type()}: ${message.text()} (${message.location().url})`)
    }
  })
  context.on('weberror', (error) => complain(`exception: ${error.error().message} (${error.page()?.url()})`))
  context.on('dialog', (dialog) => {
    complain(`dialog: ${dialog.message()} (${dialog.page()?.url()})`)
    void dialog.dismiss()
  })
  return complaints
}

/**
 * A picture into $SHOT_DIR, when that is set.
 * @param {import('playwright-core').Page} page
 * @param {string} name
 */
export async function shot(page, name) {
  const folder = process.env.SHOT_DIR
  if (!folder) return
  await mkdir(folder, { recursive: true })
  await page.screenshot({ path: join(folder, `${name}.png`), fullPage: true })
}
