// The one end that a console comes to, out of all that closes and goes wrong. Called by sessions.

import { type End, endOf, isRefusal } from "./ends.js";

export interface Ended extends End {
  code: number | undefined;
  refused: boolean;
}

/** Something above the WebSocket, whose close code says nothing then. */
export type Mishap = Pick<Ended, "sentence" | "hint">;

const LEFT: Mishap = { sentence: "You left the console.", hint: "The machine goes on running." };

const RETRY = { again: true, byItself: false, tokenDead: false };

export class Ending {
  readonly #tell: (end: Ended) => void;
  #connected = false;
  #over = false;
  #mishap: Mishap | undefined;

  /** Tells the end once, however much ends. */
  constructor(tell: (end: Ended) => void) {
    this.#tell = tell;
  }

  /** Takes the socket's close for the end, until `abandoned`. */
  watch(socket: WebSocket, abandoned?: AbortSignal): void {
    const until = abandoned ? { signal: abandoned } : {};
    let opened = false;
    socket.addEventListener("open", () => (opened = true), until);
    socket.addEventListener("close", ({ code, reason }) => this.#end(code, reason, opened), until);
  }

  /** What was asked for is there; what the server says from now on is no refusal. */
  connected(): void {
    this.#connected = true;
  }

  /** What went wrong; the first one counts. */
  blame(mishap: Mishap): void {
    this.#mishap ??= mishap;
  }

  /** Ends now, whether or not a socket closes. */
  now(): void {
    this.#end(undefined, "", true);
  }

  /** Ends now, because the viewer wants so. */
  leave(): void {
    this.#mishap = LEFT;
    this.now();
  }

  #end(code: number | undefined, sentence: string, opened: boolean): void {
    if (this.#over) {
      return;
    }
    this.#over = true;
    const gatewaySpoke = code !== undefined && code >= 4000;
    const mishap = gatewaySpoke ? undefined : this.#mishap;
    if (mishap) {
      this.#tell({ ...RETRY, ...mishap, code: undefined, refused: false });
    } else {
      const end = endOf(code ?? 1006, sentence, opened);
      this.#tell({ ...end, code, refused: isRefusal(code ?? 1006, this.#connected) });
    }
  }
}
