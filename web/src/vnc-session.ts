// One VNC console: the WebSocket, and noVNC on top of it.
//
// noVNC does not hand out how a WebSocket was closed, so the socket is made here, listened to,
// and then given to it.

import RFB, { type Credentials } from "novnc/rfb.js";

import { Ending, type Mishap } from "./ending.js";
import type { Session, Watcher } from "./page.js";
import { readable, type Settings } from "./settings.js";

const GARBLED: Mishap = {
  sentence: "The console's answer could not be understood.",
  hint: "The machine speaks a kind of VNC that this page does not know.",
};

const KEY_CHECK: Mishap = {
  sentence: "This console wants its key confirmed by hand.",
  hint: "That kind of VNC security (RSA-AES) belongs between the gateway and the host; tell the operator.",
};

/** A close frame that was sent before ours arrives within one way over a slow network. */
const LAST_WORD_MS = 400;

export class VncSession implements Session<RFB> {
  readonly screen: RFB;
  readonly #watcher: Watcher;
  readonly #ending: Ending;

  /** Starts connecting. Everything else is told to the watcher, its end exactly once. */
  constructor(target: HTMLElement, address: string, settings: Settings, watcher: Watcher) {
    this.#watcher = watcher;
    this.#ending = new Ending((end) => watcher.ended(end));
    const socket = new WebSocket(address);
    this.#ending.watch(socket);
    this.screen = new RFB(target, socket, { shared: settings.shared });
    this.#apply(settings);
    this.#listen();
  }

  answer(given: Credentials): void {
    this.screen.sendCredentials(given);
  }

  lookOnly(): void {
    this.screen.viewOnly = true;
  }

  leave(): void {
    this.screen.disconnect();
    this.#ending.leave();
  }

  #apply(settings: Settings): void {
    this.screen.background = "#000";
    this.screen.viewOnly = settings.viewOnly;
    this.screen.scaleViewport = settings.resize === "scale";
    this.screen.resizeSession = settings.resize === "remote";
    this.screen.qualityLevel = settings.quality;
    this.screen.compressionLevel = settings.compression;
    this.screen.showDotCursor = settings.showDot;
  }

  #listen(): void {
    this.screen.addEventListener("connect", () => {
      this.#ending.connected();
      this.#watcher.connected();
    });
    this.screen.addEventListener("credentialsrequired", (event) =>
      this.#watcher.credentialsWanted(event.detail.types),
    );
    this.screen.addEventListener("securityfailure", (event) => this.#refusedByConsole(event.detail.reason));
    this.screen.addEventListener("serververification", () => {
      this.#ending.blame(KEY_CHECK);
      this.screen.disconnect();
    });
    this.screen.addEventListener("desktopname", (event) => this.#watcher.named(event.detail.name));
    this.screen.addEventListener("clipboard", (event) => this.#watcher.clipboard(event.detail.text));
    this.screen.addEventListener("disconnect", (event) => this.#parted(event.detail.clean));
  }

  /**
   * noVNC is done with it. Usually the WebSocket has closed by then and said why; where noVNC
   * gave up by itself, the gateway's word may be on its way and is worth a moment.
   */
  #parted(clean: boolean): void {
    if (!clean) {
      this.#ending.blame(GARBLED);
    }
    setTimeout(() => this.#ending.now(), LAST_WORD_MS);
  }

  #refusedByConsole(reason: string | undefined): void {
    // QEMU counts the end of its C string in.
    const said = readable(reason);
    this.#ending.blame({
      sentence: said ? `The console said: ${said}` : "The console refused the password.",
      hint: "Reconnect to try another password.",
    });
  }
}
