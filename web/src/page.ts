// A console's page: reads its address, hides the token, connects, and says how it ended. Knows no
// protocol: how a console is opened, and what bar stands above it, comes from the page's script.

import type { Credentials } from "novnc/rfb.js";

import type { Ended } from "./ending.js";
import * as memory from "./memory.js";
import * as password from "./password.js";
import { mayType } from "./rights.js";
import {
  namesConsole,
  readable,
  readSettings,
  Refusal,
  type Settings,
  socketAddress,
  withoutSecrets,
} from "./settings.js";
import { button, element, entitle, hintAt, show } from "./view.js";

/** What a session tells; its end exactly once. */
export interface Watcher {
  connected(): void;
  credentialsWanted(types: (keyof Credentials)[]): void;
  named(name: string): void;
  clipboard(text: string): void;
  ended(end: Ended): void;
}

/** One try at a console. */
export interface Session<Screen> {
  readonly screen: Screen;
  /** Gives what was asked for. */
  answer(given: Credentials): void;
  /** Ends it because the viewer wants so. */
  leave(): void;
  /** Sends nothing any more: the gateway would drop it. */
  lookOnly?(): void;
}

/** Starts connecting to the WebSocket's address; a console is drawn into the target. */
export type Open<Screen> = (
  target: HTMLElement,
  address: string,
  settings: Settings,
  watcher: Watcher,
) => Session<Screen>;

/** What stands above the console. */
export interface Bar<Screen> {
  /** Wires it up, once. */
  prepare(leave: () => void): void;
  /** Gives it a console to work on, or takes it away. */
  attach(screen: Screen | undefined, viewOnly: boolean): void;
  /** Text the console put on its clipboard. */
  receive(text: string): void;
}

interface Focusable {
  focus(options?: FocusOptions): void;
}

const LONGEST_DELAY_MS = 60_000;

class Console<Screen extends Focusable> implements Watcher {
  readonly #settings: Settings;
  readonly #open: Open<Screen>;
  readonly #bar: Bar<Screen>;
  #session: Session<Screen> | undefined;
  #tries = 0;
  #retry: ReturnType<typeof setInterval> | undefined;

  constructor(settings: Settings, open: Open<Screen>, bar: Bar<Screen>) {
    this.#settings = settings;
    this.#open = open;
    this.#bar = bar;
    if (settings.title) {
      entitle(settings.title);
    }
    button("reconnect").addEventListener("click", () => this.connect());
    bar.prepare(() => this.#session?.leave());
  }

  connect(): void {
    clearInterval(this.#retry);
    const { path, token } = this.#settings;
    show("connecting", { message: "Connecting" });
    const address = socketAddress(location.href, path, token);
    this.#session = this.#open(element("screen", HTMLElement), address, this.#settings, this);
  }

  connected(): void {
    this.#tries = 0;
    show("connected", { message: "Connected" });
    this.#bar.attach(this.#session?.screen, this.#settings.viewOnly);
    this.#session?.screen.focus({ preventScroll: true });
    void this.#learnRights(this.#session);
  }

  /** Shows it where the gateway lets the viewer do no more than look. */
  async #learnRights(session: Session<Screen> | undefined): Promise<void> {
    const { path, token, viewOnly } = this.#settings;
    const allowed = viewOnly || (await mayType(location.href, path, token));
    if (!allowed && session && session === this.#session) {
      session.lookOnly?.();
      this.#bar.attach(session.screen, true);
    }
  }

  credentialsWanted(types: (keyof Credentials)[]): void {
    show("credentials", { message: password.question(types) });
    password.ask(types, (given) => {
      show("connecting", { message: "Connecting" });
      this.#session?.answer(given);
    });
  }

  named(name: string): void {
    const title = this.#settings.title ?? readable(name);
    if (title) {
      entitle(title);
    }
  }

  clipboard(text: string): void {
    this.#bar.receive(text);
  }

  ended(end: Ended): void {
    password.clear();
    this.#bar.attach(undefined, this.#settings.viewOnly);
    if (end.tokenDead) {
      memory.forget();
    }
    show(end.refused ? "refused" : "disconnected", {
      message: end.sentence,
      hint: end.hint,
      code: end.code,
      id: end.id,
      again: end.again,
    });
    if (end.byItself && this.#settings.reconnect) {
      this.#connectLater(end.hint);
    }
  }

  /** Twice as long each time, so that a gateway that comes back is not trampled. */
  #connectLater(hint: string): void {
    const wait = Math.min(this.#settings.reconnectDelayMs * 2 ** this.#tries++, LONGEST_DELAY_MS);
    const until = performance.now() + wait;
    const tick = (): void => {
      const left = until - performance.now();
      if (left <= 0) {
        this.connect();
      } else {
        hintAt(`${hint} Trying again in ${Math.ceil(left / 1000)} s.`);
      }
    };
    clearInterval(this.#retry);
    this.#retry = setInterval(tick, 250);
    tick();
  }
}

/** The settings of this address. The token goes from the address bar to the tab's memory. */
function takeSettings(): Settings {
  const address = location.href;
  history.replaceState(history.state, "", withoutSecrets(address));
  const settings = readSettings(address);
  if (settings.token !== undefined) {
    memory.remember(settings.token);
    return settings;
  }
  const token = memory.recall();
  if (token === undefined && !namesConsole(address)) {
    throw new Refusal("This address names no console.");
  }
  return { ...settings, token };
}

/** Opens the console that the address names. */
export function start<Screen extends Focusable>(open: Open<Screen>, bar: Bar<Screen>): void {
  // An address that differs in the fragment alone does not load the page anew.
  window.addEventListener("hashchange", () => namesConsole(location.href) && location.reload());
  try {
    new Console(takeSettings(), open, bar).connect();
  } catch (refusal) {
    if (!(refusal instanceof Refusal)) {
      throw refusal;
    }
    show("refused", {
      message: refusal.message,
      hint: "Ask for a new console address where you got this one.",
    });
  }
}
