/** Why a video stopped, and where to go on. */
import type { ApiError } from '../api/errors'
import { homeProblem } from './homeProblem'

/** `MediaError.code`, as browsers number it. */
const NETWORK = 2
const DECODE = 3

/** Where a page stands with its `<video>`. */
export type Playback =
  | { stage: 'going' }
  /** No data for `SLOW_MS` although it wants to play. */
  | { stage: 'slow' }
  /** It failed at this second; why is being asked. */
  | { stage: 'asking'; at: number }
  | { stage: 'failed'; at: number; problem: Stop }

export interface Stop {
  heading: string
  text: string
  /** Whether trying again may help: not where this browser can't play it. */
  mayRetry: boolean
}

/** A seek over a slow line takes seconds; this is longer. */
export const SLOW_MS = 10_000

/**
 * From the browser's number and what the stream's address answered to a
 * question of our own (`undefined`: it answered well).
 */
export function stopOf(code: number | undefined, answer: ApiError | undefined, codecs: string): Stop {
  if (answer !== undefined) {
    const { heading, text } = homeProblem(answer)
    return { heading, text, mayRetry: true }
  }
  if (code === NETWORK) {
    return { heading: 'The connection broke', text: 'The server stopped sending, and answers again now.', mayRetry: true }
  }
  const format = codecs === '' ? '' : ` Its format: ${codecs}.`
  if (code === DECODE) {
    return { heading: 'This part cannot be played', text: `The file is damaged here, or this browser cannot decode it.${format}`, mayRetry: true }
  }
  return { heading: 'This browser cannot play this file', text: `The server sends it, but in a format that this browser does not know.${format} Another browser or a Phlix app may.`, mayRetry: false }
}

/** "1:02:03", "4:05". */
export function clock(seconds: number): string {
  const whole = Math.max(0, Math.floor(seconds))
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor((whole % 3600) / 60), whole % 60]
  const two = (part: number) => String(part).padStart(2, '0')
  return h > 0 ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`
}

export type Key = { act: 'toggle' | 'mute' | 'fullscreen' } | { act: 'skip'; seconds: number }

/** What a key means to the player; `undefined` leaves it to the browser. */
export function keyOf(event: Pick<KeyboardEvent, 'key' | 'ctrlKey' | 'altKey' | 'metaKey'>): Key | undefined {
  if (event.ctrlKey || event.altKey || event.metaKey) return undefined
  switch (event.key) {
    case ' ':
    case 'k':
      return { act: 'toggle' }
    case 'ArrowLeft':
    case 'j':
      return { act: 'skip', seconds: -10 }
    case 'ArrowRight':
    case 'l':
      return { act: 'skip', seconds: 10 }
    case 'm':
      return { act: 'mute' }
    case 'f':
      return { act: 'fullscreen' }
    default:
      return undefined
  }
}
