/** Where one is in a server's libraries: a place is a URL, and the way back from it too. */
import type { LocationQuery, LocationQueryRaw, RouteLocationRaw } from 'vue-router'
import { isId, type MediaItem, type MediaPage } from '../api/homeData'

export interface Place {
  library: string | undefined
  /** A series or season, whose episodes are shown. */
  parent: string | undefined
  search: string | undefined
  /** From 1. */
  page: number
}

/** Rows of 2, 3, 4 and 6 come out even. */
export const PAGE_SIZE = 48

/** A query is a stranger's: what is no id is no place. */
export function placeOf(query: LocationQuery): Place {
  const page = Number(query.page)
  return {
    library: idOf(query.library),
    parent: idOf(query.parent),
    search: typeof query.q === 'string' && query.q.trim() !== '' ? query.q.trim().slice(0, 200) : undefined,
    page: Number.isInteger(page) && page >= 1 && page <= 100_000 ? page : 1,
  }
}

function idOf(value: unknown): string | undefined {
  return typeof value === 'string' && isId(value) ? value : undefined
}

/** The start: all libraries. */
export function isStart(place: Place): boolean {
  return place.library === undefined && place.parent === undefined && place.search === undefined
}

export function toPlace(server: string, place: Partial<Place> = {}): RouteLocationRaw {
  const query: LocationQueryRaw = {}
  if (place.library !== undefined) query.library = place.library
  if (place.parent !== undefined) query.parent = place.parent
  if (place.search !== undefined) query.q = place.search
  if (place.page !== undefined && place.page > 1) query.page = String(place.page)
  return { path: `/servers/${encodeURIComponent(server)}/browse`, query }
}

/** What is shown of how many: "49–96 of 213". */
export function span(page: number, shown: MediaPage): string {
  const first = (page - 1) * PAGE_SIZE
  if (shown.items.length === 0) return 'Nothing'
  const range = `${first + 1}–${first + shown.items.length}`
  return shown.total === undefined ? range : `${range} of ${shown.total}`
}

/** Is there a page after this one? A server that does not count has one where this is full. */
export function hasNext(page: number, shown: MediaPage): boolean {
  return shown.total === undefined ? shown.items.length >= PAGE_SIZE : page * PAGE_SIZE < shown.total
}

const CONTAINERS = new Set(['series', 'show', 'season', 'album', 'artist', 'collection', 'folder'])
const STILL = new Set(['photo', 'image', 'book'])

/** Where an item leads: its parts, the player, or nowhere. */
export function wayTo(server: string, item: MediaItem, library: string | undefined): RouteLocationRaw | undefined {
  if (CONTAINERS.has(item.type)) return toPlace(server, { library, parent: item.id })
  if (STILL.has(item.type)) return undefined
  return `/servers/${encodeURIComponent(server)}/play/${encodeURIComponent(item.id)}`
}

/** "Season 1, episode 2", "2001", "An Artist": what tells an item from its like. */
export function about(item: MediaItem): string {
  if (item.type === 'episode' && item.episode !== undefined) {
    return item.season === undefined ? `Episode ${item.episode}` : `Season ${item.season}, episode ${item.episode}`
  }
  return [item.artist, item.year].filter((part) => part !== undefined).join(', ')
}

const KINDS: Record<string, string> = {
  movie: 'Films',
  series: 'Series',
  music: 'Music',
  audiobook: 'Audiobooks',
  photo: 'Photos',
  book: 'Books',
  video: 'Videos',
}

/** What a library holds; empty for a type that is not known here. */
export function libraryKind(type: string): string {
  return Object.hasOwn(KINDS, type) ? (KINDS[type] ?? '') : ''
}
