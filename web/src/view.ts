// The page's elements, and what it means for them to be in a state. Knows no VNC.
//
// The state also stands on the root element (`data-state`, `data-code`) and the sentence in
// `#message`, so that style sheets, tests and people's own scripts can go by them.

export type State = "connecting" | "credentials" | "connected" | "disconnected" | "refused";

export interface Card {
  message: string;
  hint?: string;
  code?: number | undefined;
  id?: string | undefined;
  again?: boolean;
}

export function element<T extends HTMLElement>(id: string, kind: new () => T): T {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) {
    throw new Error(`the page lacks #${id}`);
  }
  return found;
}

export const button = (id: string): HTMLButtonElement => element(id, HTMLButtonElement);

const message = element("message", HTMLElement);
const hint = element("hint", HTMLElement);
const detail = element("detail", HTMLElement);
const reconnect = button("reconnect");
const status = element("status", HTMLElement);

const WORDS: Readonly<Record<State, string>> = {
  connecting: "Connecting",
  credentials: "Password wanted",
  connected: "Connected",
  disconnected: "Not connected",
  refused: "Refused",
};

/** Puts the page into a state, with what the card in the middle says in it. */
export function show(state: State, card: Card): void {
  const root = document.documentElement;
  message.textContent = card.message;
  hint.textContent = card.hint ?? "";
  const code = card.code === undefined ? "" : `Code ${card.code}`;
  detail.textContent = [code, card.id && `id ${card.id}`].filter(Boolean).join(", ");
  reconnect.hidden = !card.again;
  status.textContent = WORDS[state];
  if (card.code === undefined) {
    delete root.dataset.code;
  } else {
    root.dataset.code = String(card.code);
  }
  root.dataset.state = state;
  if (card.again) {
    reconnect.focus();
  }
}

/** Replaces the hint, for a countdown. */
export function hintAt(text: string): void {
  hint.textContent = text;
}

/** Names the console in the tab and the bar. */
export function entitle(name: string): void {
  document.title = name;
  element("title", HTMLElement).textContent = name;
}
