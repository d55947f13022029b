/** What can go wrong with a call, in the words and codes the hub gave. */

export type Fault = 'refused' | 'unreachable' | 'too_slow' | 'unreadable'

export class ApiError extends Error {
  override readonly name = 'ApiError'

  private constructor(
    readonly fault: Fault,
    message: string,
    /** The HTTP status; 0 when no answer came. */
    readonly status: number,
    /** The machine code of the error body, when there was one. */
    readonly code: string | undefined,
    /** Seconds to wait, from `Retry-After`. */
    readonly retryAfter: number | undefined,
  ) {
    super(message)
  }

  static unreachable(): ApiError {
    return new ApiError('unreachable', 'The hub cannot be reached. Check the connection and try again.', 0, undefined, undefined)
  }

  static tooSlow(): ApiError {
    return new ApiError('too_slow', 'The hub took too long to answer. Try again.', 0, undefined, undefined)
  }

  /** A success that is not what was asked for: no JSON, another shape, or too long. */
  static unreadable(): ApiError {
    return new ApiError('unreadable', 'The answer cannot be read.', 0, undefined, undefined)
  }

  /** From an answer that was no success; the body is `{error, code, message}`, `{error: {code, message}}` or anything at all. */
  static refused(response: Response, body: unknown): ApiError {
    const code = text(body, 'code') ?? text(field(body, 'error'), 'code')
    const retryAfter = seconds(response.headers.get('Retry-After'))
    return new ApiError('refused', sentence(response.status, body, retryAfter), response.status, code, retryAfter)
  }
}

function sentence(status: number, body: unknown, retryAfter: number | undefined): string {
  if (status === 429) return `Too many attempts. Try again ${wait(retryAfter)}.`
  const message = text(body, 'message')
  if (status >= 500) return message ?? `The hub has a problem (${status}). Try again in a moment.`
  return message ?? text(body, 'error') ?? `The hub refused this (${status}).`
}

/** "in 3 minutes": how long `Retry-After` asks to wait. */
export function wait(retryAfter: number | undefined): string {
  if (retryAfter === undefined) return 'later'
  if (retryAfter < 90) return `in ${Math.max(1, Math.ceil(retryAfter))} seconds`
  const minutes = Math.ceil(retryAfter / 60)
  return minutes < 90 ? `in ${minutes} minutes` : `in ${Math.ceil(minutes / 60)} hours`
}

function text(body: unknown, name: string): string | undefined {
  const value = field(body, name)
  return typeof value === 'string' && value !== '' ? value : undefined
}

function field(body: unknown, name: string): unknown {
  return typeof body === 'object' && body !== null ? Reflect.get(body, name) : undefined
}

function seconds(header: string | null): number | undefined {
  if (header === null || !/^\d{1,9}$/.test(header)) return undefined
  return Number(header)
}
