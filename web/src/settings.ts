// What the page's address asks for. Pure: an address in, settings or a refusal out.
//
// Understood are the forms Nova and Horizon write (`?path=%3Ftoken%3DT&title=...`), a plain
// `?token=T`, and noVNC's own parameters. The fragment beats the query. An address must never
// make this page show somebody else's console, so anything that leads to another origin is
// refused in words.

export type Resize = "off" | "scale" | "remote";

export interface Settings {
  /** Where the WebSocket is, relative to the page, without the token. */
  path: string;
  /** The secret; absent when the address has none (any more). */
  token: string | undefined;
  title: string | undefined;
  viewOnly: boolean;
  resize: Resize;
  quality: number;
  compression: number;
  shared: boolean;
  showDot: boolean;
  reconnect: boolean;
  reconnectDelayMs: number;
  logging: string;
}

/** A sentence that says why the address is not followed. */
export class Refusal extends Error {}

/** noVNC's default, so that rules written for it on a reverse proxy go on working. */
const DEFAULT_PATH = "websockify";

/** Not to stay in the address bar, the history or a bookmark. */
const SECRETS = ["token", "password"];

/** Reads the settings, or throws a {@link Refusal}. */
export function readSettings(address: string): Settings {
  const page = new URL(address);
  const [query, fragment] = parametersOf(page);
  const read = (name: string): string | undefined => fragment.get(name) ?? query.get(name) ?? undefined;

  refuseForeignHost(page, read("host"), read("port"));
  const { path, token } = splitPath(read("path"));
  return {
    path: samePlace(page, path ?? DEFAULT_PATH),
    token: token ?? (lastOf(fragment, "token") || lastOf(query, "token") || undefined),
    title: readable(read("title")),
    viewOnly: flag(read("view_only"), false),
    resize: oneOf(read("resize"), ["off", "scale", "remote"], "scale"),
    quality: digit(read("quality"), 6),
    compression: digit(read("compression"), 2),
    shared: flag(read("shared"), true),
    showDot: flag(read("show_dot"), false),
    reconnect: flag(read("reconnect"), false),
    reconnectDelayMs: delay(read("reconnect_delay")),
    logging: oneOf(read("logging"), ["none", "error", "warn", "info", "debug"], "warn"),
  };
}

/** Whether the address names a place or a token, so that there is something to connect to. */
export function namesConsole(address: string): boolean {
  const sources = parametersOf(new URL(address));
  return sources.some((source) => source.get("token") || source.get("path"));
}

/** The page's address without its secrets; what else it says stays. */
export function withoutSecrets(address: string): string {
  const page = new URL(address);
  const [query, fragment] = parametersOf(page);
  page.search = cleaned(query);
  page.hash = page.hash.includes("=") ? cleaned(fragment) : page.hash;
  return page.href;
}

/** The address of the WebSocket, token and all. */
export function socketAddress(address: string, path: string, token: string | undefined): string {
  const socket = new URL(path, bare(new URL(address)));
  if (token !== undefined) {
    socket.searchParams.set("token", token);
  }
  socket.protocol = socket.protocol === "https:" ? "wss:" : "ws:";
  return socket.href;
}

/** Text from outside, cut and freed of characters that turn or hide their neighbours. */
export function readable(text: string | undefined): string | undefined {
  const plain = text?.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]+/gu, " ").trim();
  return plain ? Array.from(plain).slice(0, 120).join("") : undefined;
}

/**
 * Query and fragment. A raw `?` inside counts as `&`: Nova up to 30 adds `?path=...` to an
 * address that may have a query already, and some write `path=websockify?token=T` unencoded.
 */
function parametersOf(page: URL): [URLSearchParams, URLSearchParams] {
  const parse = (text: string): URLSearchParams =>
    new URLSearchParams(text.slice(1).replaceAll("?", "&"));
  return [parse(page.search), parse(page.hash)];
}

function splitPath(value: string | undefined): { path: string | undefined; token: string | undefined } {
  if (!value) {
    return { path: undefined, token: undefined };
  }
  const [place = "", ...queries] = value.split("?");
  const query = new URLSearchParams(queries.join("&"));
  const token = lastOf(query, "token");
  query.delete("token");
  const rest = query.toString();
  return { path: rest ? `${place}?${rest}` : place, token: token || undefined };
}

/** The last one counts, as it does for the server. */
function lastOf(source: URLSearchParams, name: string): string | undefined {
  return source.getAll(name).at(-1);
}

function cleaned(source: URLSearchParams): string {
  const kept = new URLSearchParams(source);
  const { path } = splitPath(source.get("path") ?? undefined);
  SECRETS.forEach((name) => kept.delete(name));
  if (path) {
    kept.set("path", path);
  } else {
    kept.delete("path");
  }
  return kept.toString();
}

function bare(page: URL): URL {
  const base = new URL(page);
  base.search = "";
  base.hash = "";
  base.username = "";
  base.password = "";
  return base;
}

function samePlace(page: URL, path: string): string {
  const refusal = "This address leads to a console on another server, and is not followed.";
  if (URL.canParse(path)) {
    throw new Refusal(refusal);
  }
  const base = bare(page);
  if (!URL.canParse(path, base) || new URL(path, base).origin !== page.origin) {
    throw new Refusal(refusal);
  }
  return path;
}

function refuseForeignHost(page: URL, host: string | undefined, port: string | undefined): void {
  const usual = page.protocol === "https:" ? "443" : "80";
  const otherHost = host && host.toLowerCase() !== page.hostname;
  const otherPort = port && port !== "0" && port !== (page.port || usual);
  if (otherHost || otherPort) {
    throw new Refusal("This address names another host or port, and is not followed.");
  }
}

function flag(value: string | undefined, usual: boolean): boolean {
  return value === undefined ? usual : /^(1|t|y|on)/i.test(value);
}

function digit(value: string | undefined, usual: number): number {
  return value !== undefined && /^[0-9]$/.test(value) ? Number(value) : usual;
}

function delay(value: string | undefined): number {
  return value !== undefined && /^[0-9]{1,6}$/.test(value) ? Math.max(250, Number(value)) : 5000;
}

function oneOf<T extends string>(value: string | undefined, known: readonly T[], usual: T): T {
  return known.find((each) => each === value) ?? usual;
}
