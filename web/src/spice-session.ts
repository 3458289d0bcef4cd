// One SPICE console: its channels, the screen they draw, and the one end all of it comes to.

import type { Credentials } from "novnc/rfb.js";
import type { SpiceConn } from "spice/spiceconn.js";

import { Ending, type Mishap } from "./ending.js";
import type { Session, Watcher } from "./page.js";
import { codeOf } from "./scancodes.js";
import type { Screen } from "./screen.js";
import type { Settings } from "./settings.js";
import { Main, type User } from "./spice-channels.js";
import { Input } from "./spice-inputs.js";

const GARBLED: Mishap = {
  sentence: "The console's answer could not be understood.",
  hint: "The machine speaks a kind of SPICE that this page does not know.",
};

const SILENT: Mishap = {
  sentence: "The console does not answer.",
  hint: "Try again; if it stays, tell the operator.",
};

/** What the library says when the password is wrong, or none was given. */
const REFUSED = "Permission denied.";
const LATE = "Connection timed out.";
/** And when the other end hangs up in the middle of a greeting. */
const CUT = "Unexpected protocol mismatch.";

/** The library finds the element to draw into by its id. */
const SURFACE = "spice-surface";

/** Windows are resized in many small steps; one answer to all of them will do. */
const RESIZE_MS = 200;

export class SpiceSession implements Session<Screen>, User {
  readonly screen: SpiceScreen;
  readonly #address: string;
  readonly #settings: Settings;
  readonly #watcher: Watcher;
  readonly #ending: Ending;
  readonly #input: Input;
  #abandoned = new AbortController();
  #main: Main | undefined;
  #drawn = false;
  #listening = false;
  #connected = false;
  #resizing: ReturnType<typeof setTimeout> | undefined;

  /** Starts connecting. Everything else is told to the watcher, its end exactly once. */
  constructor(target: HTMLElement, address: string, settings: Settings, watcher: Watcher) {
    this.#address = address;
    this.#settings = settings;
    this.#watcher = watcher;
    this.#ending = new Ending((end) => {
      this.#close();
      this.screen.discard();
      watcher.ended(end);
    });
    this.#input = new Input(() => (settings.viewOnly ? undefined : this.#main?.inputs));
    this.screen = new SpiceScreen(target, this.#input);
    this.screen.scaleViewport = settings.resize === "scale";
    this.#dial("");
  }

  /** A console that asks for a password has hung up: with the password it is dialled again. */
  answer(given: Credentials): void {
    this.#dial(given.password ?? "");
  }

  leave(): void {
    this.#ending.leave();
  }

  dialled(socket: WebSocket): void {
    this.#ending.watch(socket, this.#abandoned.signal);
  }

  failed(channel: SpiceConn, error: unknown): void {
    const why = error instanceof Error ? error.message : "";
    if (why === REFUSED && channel === this.#main) {
      this.#close();
      this.#watcher.credentialsWanted(["password"]);
    } else if (why === LATE || channel.state === "error") {
      this.#ending.blame(why === LATE ? SILENT : GARBLED);
      this.#ending.now();
    }
    // Its socket has closed, or is about to, and may say more.
    if (why === CUT && channel === this.#main) {
      this.#ending.blame(GARBLED);
    }
  }

  drawn(canvas: HTMLCanvasElement): void {
    this.screen.show(canvas);
    this.#input.listen(canvas);
    // The canvas before this one may have had the keyboard.
    if (this.#connected && document.activeElement === document.body) {
      canvas.focus({ preventScroll: true });
    }
    this.#drawn = true;
    this.#complete();
  }

  listening(): void {
    this.#listening = true;
    this.#complete();
  }

  pointed(): void {
    this.#input.pointed();
  }

  resizable(): void {
    if (this.#settings.resize === "remote") {
      const { signal } = this.#abandoned;
      window.addEventListener("resize", () => this.#resizeLater(), { signal });
      this.#resizeLater();
    }
  }

  /** Each channel comes in its own time; what is typed before all are there would be lost. */
  #complete(): void {
    if (this.#drawn && this.#listening && !this.#connected) {
      this.#connected = true;
      this.#ending.connected();
      this.#watcher.connected();
    }
  }

  #dial(password: string): void {
    this.#close();
    this.#abandoned = new AbortController();
    this.#main = new Main(this.#address, SURFACE, password, this);
  }

  #close(): void {
    this.#abandoned.abort();
    clearTimeout(this.#resizing);
    this.#input.ignore();
    this.#main?.stop();
    this.#main = undefined;
    this.screen.clear();
  }

  /** X servers want multiples of 8. */
  #resizeLater(): void {
    clearTimeout(this.#resizing);
    const whole = (size: number): number => size - (size % 8);
    this.#resizing = setTimeout(
      () => this.#main?.resize_window(0, whole(window.innerWidth), whole(window.innerHeight), 32, 0, 0),
      RESIZE_MS,
    );
  }
}

/** The picture on the page, and what the bar does to it. */
class SpiceScreen implements Screen {
  readonly #input: Input;
  readonly #target: HTMLElement;
  readonly #surface = document.createElement("div");
  readonly #sizes = new ResizeObserver(() => this.#fit());
  #canvas: HTMLCanvasElement | undefined;
  #scaled = true;

  constructor(target: HTMLElement, input: Input) {
    this.#input = input;
    this.#target = target;
    this.#surface.id = SURFACE;
    target.classList.add("spice");
    target.replaceChildren(this.#surface);
    this.#sizes.observe(target);
  }

  get scaleViewport(): boolean {
    return this.#scaled;
  }

  set scaleViewport(wanted: boolean) {
    this.#scaled = wanted;
    this.#fit();
  }

  focus(options?: FocusOptions): void {
    this.#canvas?.focus(options);
  }

  sendKey(keysym: number, code: string | null, down?: boolean): void {
    const key = code ?? codeOf(keysym);
    for (const way of down === undefined ? [true, false] : [down]) {
      if (key) {
        this.#input.send(key, way);
      }
    }
  }

  sendCtrlAltDel(): void {
    const keys = ["ControlLeft", "AltLeft", "Delete"];
    keys.forEach((key) => this.#input.send(key, true));
    keys.reverse().forEach((key) => this.#input.send(key, false));
  }

  /** A canvas of another size takes the place of the one before. */
  show(canvas: HTMLCanvasElement): void {
    this.#canvas = canvas;
    this.#fit();
  }

  clear(): void {
    this.#canvas = undefined;
    this.#surface.replaceChildren();
  }

  discard(): void {
    this.#sizes.disconnect();
    this.#surface.remove();
  }

  #fit(): void {
    const canvas = this.#canvas;
    if (canvas) {
      const { clientWidth, clientHeight } = this.#target;
      const fitting = Math.min(clientWidth / canvas.width, clientHeight / canvas.height);
      const scale = this.#scaled ? fitting : 1;
      canvas.style.width = `${canvas.width * scale}px`;
      canvas.style.height = `${canvas.height * scale}px`;
      this.#surface.style.height = canvas.style.height;
    }
  }
}
