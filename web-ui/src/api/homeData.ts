/**
 * What a home server says, made into what the pages show. The server is a
 * stranger: each field is looked at, cut to a length, and left out when it is
 * something else; what has no usable id is left out as a whole.
 */
import { ApiError } from './errors'
import { base, proxied } from './homeUrl'

export interface Library {
  id: string
  name: string
  type: string
  count: number | undefined
}

export interface MediaItem {
  id: string
  name: string
  type: string
  year: number | undefined
  seconds: number | undefined
  season: number | undefined
  episode: number | undefined
  artist: string | undefined
  /** On the hub's origin, ready for an `<img>`. */
  poster: string | undefined
}

export interface MediaPage {
  items: MediaItem[]
  /** Older servers don't count. */
  total: number | undefined
}

export interface MediaDetail extends MediaItem {
  overview: string | undefined
  genres: string[]
  backdrop: string | undefined
  library: string | undefined
  parent: string | undefined
  /** On the hub's origin, ready for a `<video>`. */
  stream: string
  /** "hevc 1920 × 1080, dts": what a browser that can't play it stumbles over. */
  codecs: string
}

export interface Chapter {
  start: number
  title: string
}

/** More than a page of a library has; a server that says more is cut off. */
const MAX_ROWS = 500
const NAME = 300
const PROSE = 3_000

export function toLibraries(body: unknown): Library[] {
  return rows(body, 'libraries').flatMap((row) => {
    const id = identity(row.id)
    if (id === undefined) return []
    return { id, name: words(row.name, NAME) ?? 'Library', type: words(row.type, 40) ?? '', count: count(row.item_count) }
  })
}

export function toPage(server: string, body: unknown): MediaPage {
  const items = rows(body, 'items').flatMap((row) => toItem(server, row) ?? [])
  return { items, total: count(field(body, 'total')) }
}

export function toDetail(server: string, wanted: string, body: unknown): MediaDetail {
  const row = field(body, 'item')
  if (!isObject(row)) throw ApiError.unreadable()
  const item = toItem(server, row)
  if (item?.id !== wanted) throw ApiError.unreadable()
  return {
    ...item,
    overview: words(row.overview, PROSE),
    genres: list(row.genres).flatMap((genre) => words(genre, 60) ?? []).slice(0, 12),
    backdrop: proxied(server, row.backdrop_url),
    library: identity(row.library_id),
    parent: identity(row.parent_id),
    stream: toStream(server, wanted, row.stream_url),
    codecs: toCodecs(row.streams),
  }
}

export function toChapters(body: unknown): Chapter[] {
  return rows(body, 'chapters')
    .flatMap((row, index) => {
      const start = count(row.start_seconds)
      return start === undefined ? [] : { start, title: words(row.title, NAME) ?? `Chapter ${index + 1}` }
    })
    .sort((one, other) => one.start - other.start)
}

function toItem(server: string, row: Row): MediaItem | undefined {
  const id = identity(row.id)
  if (id === undefined) return undefined
  return {
    id,
    name: words(row.name, NAME) ?? 'Untitled',
    type: words(row.type, 40) ?? '',
    year: count(row.year),
    seconds: count(row.duration),
    season: count(row.season_number),
    episode: count(row.episode_number),
    artist: words(row.artist, NAME),
    poster: proxied(server, row.poster_url),
  }
}

/** The address that the server signed, where it is this item's stream; else the plain one. */
function toStream(server: string, id: string, url: unknown): string {
  const plain = `/media/${id}/stream`
  const signed = typeof url === 'string' && (url === plain || url.startsWith(`${plain}?`)) ? proxied(server, url) : undefined
  return signed ?? `${base(server)}${plain}`
}

function toCodecs(streams: unknown): string {
  const said = list(streams).flatMap((stream) => {
    if (!isObject(stream) || (stream.stream_type !== 'video' && stream.stream_type !== 'audio')) return []
    const codec = words(stream.codec, 20)
    if (codec === undefined) return []
    const [width, height] = [count(stream.width), count(stream.height)]
    return width && height ? `${codec} ${width} × ${height}` : codec
  })
  return [...new Set(said)].slice(0, 4).join(', ')
}

type Row = Record<string, unknown>

function isObject(value: unknown): value is Row {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function field(body: unknown, name: string): unknown {
  return isObject(body) ? body[name] : undefined
}

function list(value: unknown): unknown[] {
  return Array.isArray(value) ? value.slice(0, MAX_ROWS) : []
}

/** The objects in the named list; an answer without that list is none of ours. */
function rows(body: unknown, name: string): Row[] {
  const value = field(body, name)
  if (!Array.isArray(value)) throw ApiError.unreadable()
  return list(value).filter(isObject)
}

/** Ids become a segment of a path, so they have none of its characters. */
function identity(value: unknown): string | undefined {
  return typeof value === 'string' && isId(value) ? value : undefined
}

export function isId(text: string): boolean {
  return /^[\w-]{1,64}$/.test(text)
}

/** Text without line ends, control characters and those that reorder what stands beside them. */
function words(value: unknown, most: number): string | undefined {
  if (typeof value !== 'string') return undefined
  const text = value
    .slice(0, most * 2)
    .replace(/[\p{Cc}\p{Zl}\p{Zp}\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]+/gu, ' ')
    .trim()
  const cut = text.length > most ? `${text.slice(0, most).replace(/[\ud800-\udbff]$/, '')}…` : text
  return cut === '' ? undefined : cut
}

function count(value: unknown): number | undefined {
  return typeof value === 'number' && Number.isFinite(value) && value >= 0 && value < 1e9 ? value : undefined
}
