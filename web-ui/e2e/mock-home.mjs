/**
 * A Phlix server for the browser tests, as the hub's proxy path shows it:
 * libraries, items, posters, and a sound that a `<video>` plays. What the hub
 * says in its place (offline, denied, ...) is set by `refuses`.
 */
import { randomUUID } from 'node:crypto'

/** @import { IncomingMessage, ServerResponse } from 'node:http' */

/** Of the streams: 16 bit, stereo, two minutes of 44 100 Hz; more than a browser reads ahead. */
const RATE = 44_100
const FRAME = 4
const HEADER = 44
const SECONDS = 120
const LENGTH = HEADER + SECONDS * RATE * FRAME

export const FILMS = '11111111-1111-4111-8111-111111111111'
export const SERIES = '22222222-2222-4222-8222-222222222222'

/** @typedef {Record<string, unknown> & { id: string, name: string, type: string, library_id: string, parent_id: string | null }} Item */

export class MockHome {
  /** @type {Record<string, unknown>[]} */
  libraries = [
    { id: FILMS, name: 'Films', type: 'movie', paths: ['/srv/films'], options: {}, item_count: 60 },
    { id: SERIES, name: 'Series', type: 'series', paths: ['/srv/series'], options: {}, item_count: 1 },
  ]
  /** @type {Item[]} */
  items = []
  /** What the hub answers in the server's place.
   * @type {{ match: RegExp, status: number, body: object, headers?: Record<string, string> } | undefined} */
  refuses
  /** Streams that are being sent. */
  streams = 0
  /** A stream says no more from this byte of the file on. @type {number | undefined} */
  silentFrom
  /** What a stream is instead of a sound. @type {Buffer | undefined} */
  otherBytes
  /** Path and query of each request.
   * @type {string[]} */
  seen = []

  /** @param {Partial<Item>} [more] */
  add(more = {}) {
    const id = more.id ?? randomUUID()
    /** @type {Item} */
    const item = {
      id,
      name: `Film ${String(this.items.length + 1).padStart(2, '0')}`,
      type: 'movie',
      path: '/srv/films/a.mkv',
      poster_url: `/api/v1/artwork/${id}?size=w342&exp=1790000000&sig=s${this.items.length}`,
      backdrop_url: null,
      year: 2001,
      duration: SECONDS,
      overview: 'Somebody does something, and then something else comes of it.',
      genres: ['Drama'],
      parent_id: null,
      season_number: null,
      episode_number: null,
      library_id: FILMS,
      stream_url: `/media/${id}/stream?exp=1790000000&sig=zz`,
      streams: [{ stream_type: 'audio', codec: 'pcm_s16le' }],
      ...more,
    }
    this.items.push(item)
    return item
  }

  /**
   * @param {IncomingMessage} request
   * @param {ServerResponse} response
   * @param {string} path below the proxy, with its query
   */
  answer(request, response, path) {
    this.seen.push(path)
    /** @param {number} status @param {unknown} body @param {Record<string, string>} [headers] */
    const send = (status, body, headers = {}) => {
      response.writeHead(status, { 'Content-Type': 'application/json', ...SANDBOX, ...headers })
      response.end(JSON.stringify(body))
    }
    if (this.refuses?.match.test(path)) return send(this.refuses.status, this.refuses.body, this.refuses.headers)
    const url = new URL(path, 'http://home')
    const query = url.searchParams
    if (url.pathname === '/api/v1/libraries') return send(200, { libraries: this.libraries })
    if (url.pathname === '/api/v1/media') {
      const found = this.items.filter(
        (item) =>
          (!query.has('libraryId') || item.library_id === query.get('libraryId')) &&
          (!query.has('parentId') || item.parent_id === query.get('parentId')) &&
          (query.get('topLevel') !== '1' || item.parent_id === null) &&
          (!query.has('search') || item.name.toLowerCase().includes(query.get('search')?.toLowerCase() ?? '')),
      )
      if (query.get('sort') === 'date_added') found.reverse()
      const [limit, offset] = [Number(query.get('limit') ?? 50), Number(query.get('offset') ?? 0)]
      // The list shape names no library and no streams.
      const items = found.slice(offset, offset + limit).map((item) => ({ ...item, library_id: undefined, streams: undefined }))
      return send(200, { items, total: found.length, limit, offset })
    }
    const [, id, tail] = /^\/api\/v1\/media\/([^/]+)(\/chapters)?$/.exec(url.pathname) ?? []
    const item = this.items.find((one) => one.id === (id ?? url.pathname.split('/')[url.pathname.startsWith('/media/') ? 2 : 4]))
    if (!item) return send(404, { error: 'Item not found' })
    if (tail) return send(200, { chapters: [{ start_seconds: 0, end_seconds: 60, title: 'One' }, { start_seconds: 60, end_seconds: 120, title: 'Two' }] })
    if (id) return send(200, { item })
    if (url.pathname.startsWith('/api/v1/artwork/')) return picture(response, this.items.indexOf(item))
    if (url.pathname.startsWith('/media/')) return this.#stream(request, response)
    send(404, { error: 'Not found' })
  }

  /** @param {IncomingMessage} request @param {ServerResponse} response */
  #stream(request, response) {
    this.streams += 1
    response.once('close', () => (this.streams -= 1))
    const all = this.otherBytes?.length ?? LENGTH
    const [, from = '0', to = ''] = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '') ?? []
    const first = Number(from)
    const last = to === '' ? all - 1 : Math.min(Number(to), all - 1)
    response.writeHead(request.headers.range ? 206 : 200, {
      'Content-Type': this.otherBytes ? 'video/mp4' : 'audio/wav',
      'Content-Length': last + 1 - first,
      'Accept-Ranges': 'bytes',
      ETag: '"one"',
      ...(request.headers.range ? { 'Content-Range': `bytes ${first}-${last}/${all}` } : {}),
      ...SANDBOX,
    })
    let at = first
    const more = () => {
      while (at <= last) {
        if (this.silentFrom !== undefined && at >= this.silentFrom) return
        const end = Math.min(last + 1, at + 65_536)
        const piece = this.otherBytes?.subarray(at, end) ?? sound(at, end)
        at = end
        if (!response.write(piece)) return response.once('drain', more)
      }
      response.end()
    }
    more()
  }
}

const SANDBOX = { 'Content-Security-Policy': "sandbox; default-src 'none'", 'X-Content-Type-Options': 'nosniff' }

/** Bytes `from` to `to` of a WAV file of two quiet tones. @param {number} from @param {number} to */
function sound(from, to) {
  const bytes = Buffer.alloc(to - from)
  const head = Buffer.alloc(HEADER)
  head.write('RIFF', 0)
  head.writeUInt32LE(LENGTH - 8, 4)
  head.write('WAVEfmt ', 8)
  head.writeUInt32LE(16, 16)
  head.writeUInt16LE(1, 20)
  head.writeUInt16LE(2, 22)
  head.writeUInt32LE(RATE, 24)
  head.writeUInt32LE(RATE * FRAME, 28)
  head.writeUInt16LE(FRAME, 32)
  head.writeUInt16LE(16, 34)
  head.write('data', 36)
  head.writeUInt32LE(LENGTH - HEADER, 40)
  for (let at = from; at < to; at += 1) {
    // A saw tooth: only the high byte of each sample moves.
    bytes[at - from] = at < HEADER ? (head[at] ?? 0) : at % 2 === 1 ? ((at >> 2) % 100) >> 4 : 0
  }
  return bytes
}

/** A poster of one colour: a BMP needs no encoder. @param {ServerResponse} response @param {number} index */
function picture(response, index) {
  const [width, height] = [40, 60]
  const bytes = Buffer.alloc(54 + width * height * 3)
  bytes.write('BM', 0)
  bytes.writeUInt32LE(bytes.length, 2)
  bytes.writeUInt32LE(54, 10)
  bytes.writeUInt32LE(40, 14)
  bytes.writeInt32LE(width, 18)
  bytes.writeInt32LE(height, 22)
  bytes.writeUInt16LE(1, 26)
  bytes.writeUInt16LE(24, 28)
  for (let at = 54; at < bytes.length; at += 3) {
    const y = Math.floor((at - 54) / 3 / width)
    bytes[at] = 90 + y * 2
    bytes[at + 1] = 60 + ((index * 37) % 120)
    bytes[at + 2] = 60 + ((index * 61 + y) % 160)
  }
  response.writeHead(200, { 'Content-Type': 'image/bmp', 'Content-Length': bytes.length, ...SANDBOX })
  response.end(bytes)
}
