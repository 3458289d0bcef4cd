// One serial console: a terminal at a WebSocket that carries the line's bytes both ways.
//
// The gateway dials before it answers, but a refusal is an answer too, closed at once. So the line
// counts as connected when it has said something, or has not been closed for a moment.

import { FitAddon } from "@xterm/addon-fit";
import { Terminal } from "@xterm/xterm";

import { Ending } from "./ending.js";
import type { Session, Watcher } from "./page.js";
import type { Settings } from "./settings.js";

/** What the bar needs of a terminal. */
export type Line = Pick<Terminal, "focus">;

/** A refusal comes right behind the answer. */
const REFUSAL_MS = 300;

const LOOK = {
  fontFamily: 'ui-monospace, "DejaVu Sans Mono", monospace',
  fontSize: 15,
  scrollback: 5000,
  theme: { background: "#0b0e13", foreground: "#e8ecf2", cursor: "#4da3ff", selectionBackground: "#4da3ff66" },
  // A guest may write links, which people would follow.
  linkHandler: { activate: (): void => undefined },
};

export class SerialSession implements Session<Line> {
  readonly screen = new Terminal(LOOK);
  readonly #watcher: Watcher;
  readonly #ending: Ending;
  readonly #socket: WebSocket;
  #connected = false;

  /** Starts connecting. Everything else is told to the watcher, its end exactly once. */
  constructor(target: HTMLElement, address: string, { viewOnly }: Settings, watcher: Watcher) {
    this.#watcher = watcher;
    const sizes = this.#open(target);
    this.#ending = new Ending((end) => {
      sizes.disconnect();
      this.screen.dispose();
      watcher.ended(end);
    });
    this.#socket = new WebSocket(address);
    this.#socket.binaryType = "arraybuffer";
    this.#ending.watch(this.#socket);
    this.#socket.addEventListener("open", () => setTimeout(() => this.#heard(), REFUSAL_MS));
    this.#socket.addEventListener("message", ({ data }: MessageEvent<ArrayBuffer>) => {
      this.#heard();
      // Characters may be split between messages; the terminal joins them.
      this.screen.write(new Uint8Array(data));
    });
    if (!viewOnly) {
      this.#listen();
    }
  }

  /** Nobody asks; a guest's own question is part of what it writes. */
  answer(): void {}

  leave(): void {
    this.#socket.close();
    this.#ending.leave();
  }

  /** As large as the window; a serial line has no way to tell the guest. */
  #open(target: HTMLElement): ResizeObserver {
    const fit = new FitAddon();
    this.screen.loadAddon(fit);
    target.classList.add("serial");
    target.replaceChildren();
    this.screen.open(target);
    const sizes = new ResizeObserver(() => fit.fit());
    sizes.observe(target);
    return sizes;
  }

  #listen(): void {
    const encoder = new TextEncoder();
    this.screen.onData((text) => this.#send(encoder.encode(text)));
    this.screen.onBinary((bytes) => this.#send(Uint8Array.from(bytes, (byte) => byte.charCodeAt(0))));
  }

  #send(bytes: Uint8Array<ArrayBuffer>): void {
    if (this.#socket.readyState === WebSocket.OPEN) {
      this.#socket.send(bytes);
    }
  }

  #heard(): void {
    if (!this.#connected && this.#socket.readyState === WebSocket.OPEN) {
      this.#connected = true;
      this.#ending.connected();
      this.#watcher.connected();
    }
  }
}
