/** A `<video>` on any page, made to play and to seek. */
import assert from 'node:assert/strict'
import { shot } from './browser.mjs'

/** @import { Page } from 'playwright-core' */

/** Plays, then seeks and plays on. @param {Page} page */
export async function play(page) {
  const video = page.locator('video').first()
  await video.waitFor({ state: 'attached' })
  await video.evaluate(async (/** @type {HTMLVideoElement} */ element) => {
    element.muted = true
    await element.play()
  })
  const element = await video.elementHandle()
  /** @param {number} time */
  const passes = (time) =>
    page.waitForFunction(
      ([node, past]) => {
        const { error, currentTime, seeking } = /** @type {HTMLVideoElement} */ (node)
        if (error) throw new Error(`media error ${error.code}: ${error.message}`)
        return !seeking && currentTime > /** @type {number} */ (past)
      },
      /** @type {const} */ ([element, time]),
    )
  await passes(1)
  const before = await video.evaluate((/** @type {HTMLVideoElement} */ node) => [node.currentTime, node.duration])
  const [played = 0, duration = 0] = before
  assert.ok(Number.isFinite(duration) && duration > 6, `the video lasts ${duration} s; too short to seek in`)
  const target = Math.max(duration * 0.6, Math.min(played + 3, duration - 3))
  await video.evaluate((/** @type {HTMLVideoElement} */ node, time) => {
    node.currentTime = time
  }, target)
  await passes(target + 0.5)
  const after = await video.evaluate((/** @type {HTMLVideoElement} */ node) => node.currentTime)
  await shot(page, 'story-playing')
  return { duration, played, seek_to: target, played_after_seek: after }
}
