// The console page: reads its address, hides the token, connects, and says how it ended.

import { initLogging } from "novnc/util/logging.js";

import * as memory from "./memory.js";
import * as password from "./password.js";
import { type Ended, Session, type Watcher } from "./session.js";
import {
  namesConsole,
  readable,
  readSettings,
  Refusal,
  type Settings,
  socketAddress,
  withoutSecrets,
} from "./settings.js";
import * as toolbar from "./toolbar.js";
import { button, element, entitle, hintAt, show } from "./view.js";

const LONGEST_DELAY_MS = 60_000;

class Console implements Watcher {
  readonly #settings: Settings;
  #session: Session | undefined;
  #tries = 0;
  #retry: ReturnType<typeof setInterval> | undefined;

  constructor(settings: Settings) {
    this.#settings = settings;
    if (settings.title) {
      entitle(settings.title);
    }
    button("reconnect").addEventListener("click", () => this.connect());
    toolbar.prepare(() => this.#session?.leave());
  }

  connect(): void {
    clearInterval(this.#retry);
    const { path, token } = this.#settings;
    show("connecting", { message: "Connecting" });
    const address = socketAddress(location.href, path, token);
    this.#session = new Session(element("screen", HTMLElement), address, this.#settings, this);
  }

  connected(): void {
    this.#tries = 0;
    show("connected", { message: "Connected" });
    toolbar.attach(this.#session?.rfb, this.#settings.viewOnly);
    this.#session?.rfb.focus({ preventScroll: true });
  }

  credentialsWanted(types: Parameters<Watcher["credentialsWanted"]>[0]): void {
    show("credentials", { message: password.question(types) });
    password.ask(types, (given) => {
      show("connecting", { message: "Connecting" });
      this.#session?.rfb.sendCredentials(given);
    });
  }

  named(name: string): void {
    const title = this.#settings.title ?? readable(name);
    if (title) {
      entitle(title);
    }
  }

  clipboard(text: string): void {
    toolbar.receive(text);
  }

  ended(end: Ended): void {
    password.clear();
    toolbar.attach(undefined, this.#settings.viewOnly);
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

function start(): void {
  try {
    const settings = takeSettings();
    initLogging(settings.logging);
    new Console(settings).connect();
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

// A new address in the same tab that differs in the fragment alone does not load the page anew.
window.addEventListener("hashchange", () => namesConsole(location.href) && location.reload());
start();
