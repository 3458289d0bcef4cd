// One console: the WebSocket, noVNC on top of it, and the one end it comes to.
//
// noVNC does not hand out how a WebSocket was closed, so the socket is made here, listened to,
// and then given to it.

import RFB, { type Credentials } from "novnc/rfb.js";

import { type End, endOf, isRefusal } from "./ends.js";
import { readable, type Settings } from "./settings.js";

export interface Ended extends End {
  code: number | undefined;
  refused: boolean;
}

export interface Watcher {
  connected(): void;
  credentialsWanted(types: (keyof Credentials)[]): void;
  named(name: string): void;
  clipboard(text: string): void;
  ended(end: Ended): void;
}

type Mishap = Pick<Ended, "sentence" | "hint">;

const GARBLED: Mishap = {
  sentence: "The console's answer could not be understood.",
  hint: "The machine speaks a kind of VNC that this page does not know.",
};

const KEY_CHECK: Mishap = {
  sentence: "This console wants its key confirmed by hand.",
  hint: "That kind of VNC security (RSA-AES) belongs between the gateway and the host; tell the operator.",
};

const LEFT: Mishap = { sentence: "You left the console.", hint: "The machine goes on running." };

const RETRY = { again: true, byItself: false, tokenDead: false };

/** A close frame that was sent before ours arrives within one way over a slow network. */
const LAST_WORD_MS = 400;

export class Session {
  readonly rfb: RFB;
  readonly #watcher: Watcher;
  #opened = false;
  #connected = false;
  #over = false;
  /** What went wrong above the WebSocket; beats its close code, which says nothing then. */
  #mishap: Mishap | undefined;

  /** Starts connecting. Everything else is told to the watcher, its end exactly once. */
  constructor(target: HTMLElement, address: string, settings: Settings, watcher: Watcher) {
    this.#watcher = watcher;
    const socket = new WebSocket(address);
    socket.addEventListener("open", () => (this.#opened = true));
    socket.addEventListener("close", (event) => this.#end(event.code, event.reason));
    this.rfb = new RFB(target, socket, { shared: settings.shared });
    this.#apply(settings);
    this.#listen();
  }

  /** Ends it because the viewer wants so. */
  leave(): void {
    this.#mishap = LEFT;
    this.rfb.disconnect();
    this.#end(undefined, "");
  }

  #apply(settings: Settings): void {
    this.rfb.background = "#000";
    this.rfb.viewOnly = settings.viewOnly;
    this.rfb.scaleViewport = settings.resize === "scale";
    this.rfb.resizeSession = settings.resize === "remote";
    this.rfb.qualityLevel = settings.quality;
    this.rfb.compressionLevel = settings.compression;
    this.rfb.showDotCursor = settings.showDot;
  }

  #listen(): void {
    this.rfb.addEventListener("connect", () => {
      this.#connected = true;
      this.#watcher.connected();
    });
    this.rfb.addEventListener("credentialsrequired", (event) =>
      this.#watcher.credentialsWanted(event.detail.types),
    );
    this.rfb.addEventListener("securityfailure", (event) => this.#refusedByConsole(event.detail.reason));
    this.rfb.addEventListener("serververification", () => {
      this.#mishap = KEY_CHECK;
      this.rfb.disconnect();
    });
    this.rfb.addEventListener("desktopname", (event) => this.#watcher.named(event.detail.name));
    this.rfb.addEventListener("clipboard", (event) => this.#watcher.clipboard(event.detail.text));
    this.rfb.addEventListener("disconnect", (event) => this.#parted(event.detail.clean));
  }

  /**
   * noVNC is done with it. Usually the WebSocket has closed by then and said why; where noVNC
   * gave up by itself, the gateway's word may be on its way and is worth a moment.
   */
  #parted(clean: boolean): void {
    if (!clean) {
      this.#mishap ??= GARBLED;
    }
    setTimeout(() => this.#end(undefined, ""), LAST_WORD_MS);
  }

  #refusedByConsole(reason: string | undefined): void {
    // QEMU counts the end of its C string in.
    const said = readable(reason);
    this.#mishap = {
      sentence: said ? `The console said: ${said}` : "The console refused the password.",
      hint: "Reconnect to try another password.",
    };
  }

  #end(code: number | undefined, sentence: string): void {
    if (this.#over) {
      return;
    }
    this.#over = true;
    const gatewaySpoke = code !== undefined && code >= 4000;
    const mishap = gatewaySpoke ? undefined : this.#mishap;
    if (mishap) {
      this.#watcher.ended({ ...RETRY, ...mishap, code: undefined, refused: false });
    } else {
      const end = endOf(code ?? 1006, sentence, this.#opened);
      this.#watcher.ended({ ...end, code, refused: isRefusal(code ?? 1006, this.#connected) });
    }
  }
}
