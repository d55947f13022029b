/**
 * `npm run e2e`: the built UI in a real browser against the mock hub. Every
 * story starts with a fresh hub and a fresh browser context, and fails on any
 * console error, exception or CSP violation that it did not provoke itself.
 */
import { complaintsOf, launch, shot } from './browser.mjs'
import { MockHub } from './mock-hub.mjs'
import { stories as ofPhlix } from './phlix-stories.mjs'
import { stories as ofHub } from './stories.mjs'

const only = process.argv[2]
const browser = await launch()
let passed = 0
let failed = 0

for (const { name, expected, options, tell } of [...ofHub, ...ofPhlix]) {
  if (only && !name.includes(only)) continue
  const hub = new MockHub()
  const origin = await hub.start()
  const context = await browser.newContext({ baseURL: origin, ...options })
  context.setDefaultTimeout(5_000)
  const complaints = complaintsOf(context, expected)
  const page = await context.newPage()
  try {
    await tell({ hub, page, context })
    if (complaints.length > 0) throw new Error(`the browser complains:\n  ${complaints.join('\n  ')}`)
    passed += 1
    console.log(`ok      ${name}`)
  } catch (error) {
    failed += 1
    console.error(`FAILED  ${name}\n${error instanceof Error ? error.stack : error}`)
    if (complaints.length > 0) console.error(`complaints:\n  ${complaints.join('\n  ')}`)
    await shot(page, `failed-${name}`).catch(() => undefined)
  } finally {
    await context.close()
    await hub.stop()
  }
}

await browser.close()
console.log(`${passed} passed, ${failed} failed`)
process.exitCode = failed === 0 && passed > 0 ? 0 : 1
