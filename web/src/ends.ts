// How a console ends, in words. The codes and the sentences are the server's (docs/design.md,
// section 6); the hint says what a person can do about it.

export interface End {
  sentence: string;
  /** What the operator finds it by in the gateway's log. */
  id?: string;
  hint: string;
  /** Trying again may help. */
  again: boolean;
  /** Trying again needs no decision of a person. */
  byItself: boolean;
  /** The token is of no use any more. */
  tokenDead: boolean;
}

type Known = Partial<End> & Pick<End, "sentence" | "hint">;

const ASK = "Ask for a new console address where you got this one.";

const KNOWN: Readonly<Record<number, Known>> = {
  1000: {
    sentence: "The console has ended.",
    hint: "The machine was switched off, or closed its screen.",
    again: true,
  },
  1001: {
    sentence: "The gateway is going down.",
    hint: "It is being restarted or drained. Trying again usually helps.",
    again: true,
    byItself: true,
  },
  1002: {
    sentence: "The gateway did not understand this page.",
    hint: "Reload the page; if it happens again, something between here and the gateway alters the traffic.",
    again: true,
  },
  1003: {
    sentence: "The gateway received text where it expects screen data.",
    hint: "Reload the page; if it happens again, something between here and the gateway alters the traffic.",
    again: true,
  },
  1006: {
    sentence: "The connection was lost.",
    hint: "Your network, the gateway or a proxy in between cut it.",
    again: true,
    byItself: true,
  },
  1009: {
    sentence: "This page sent more at once than the gateway takes.",
    hint: "Send long texts in smaller parts.",
    again: true,
  },
  4001: {
    sentence: "This console address is unknown or has expired.",
    hint: "An address is good for some minutes only, and until the gateway is restarted.",
    tokenDead: true,
  },
  4002: {
    sentence: "This console address was already used.",
    hint: `Each address opens once. ${ASK}`,
    tokenDead: true,
  },
  4003: {
    sentence: "The gateway does not take connections from this page's site.",
    hint: "Open the console at the address you were given, or have the operator allow this origin.",
  },
  4004: {
    sentence: "The machine is off, or has no such console.",
    hint: "Start the machine, then ask for a console again.",
    again: true,
  },
  4005: {
    sentence: "The machine's host cannot be reached.",
    hint: "It may be restarting. Try again; if it stays, tell the operator.",
    again: true,
  },
  4006: {
    sentence: "The gateway and the machine's host do not trust each other.",
    hint: "A certificate or a security setting is wrong. Only the operator can mend this.",
  },
  4007: { sentence: "An operator ended this console.", hint: "Ask the operator, or for a new address." },
  4008: {
    sentence: "The console was closed because nobody used it.",
    hint: "Reconnect to go on.",
    again: true,
  },
  4009: { sentence: "The console reached its longest time.", hint: ASK, again: true },
  4010: {
    sentence: "Too many consoles are open.",
    hint: "Close one of them, then try again.",
    again: true,
  },
  4011: {
    sentence: "The gateway had an internal error.",
    hint: "Try again; if it stays, give the operator the id below.",
    again: true,
  },
};

const NEVER_OPENED: Known = {
  sentence: "The gateway cannot be reached, or turned the connection down.",
  hint: "The network, the gateway or a proxy in between refused it. A busy gateway does this, too.",
  again: true,
  byItself: true,
};

const OTHER: Known = { sentence: "The connection was closed.", hint: "Reconnect to go on.", again: true };

/** The end that a close code and the server's sentence (maybe empty) stand for. */
export function endOf(code: number, sentence: string, opened: boolean): End {
  const known = code === 1006 && !opened ? NEVER_OPENED : (KNOWN[code] ?? OTHER);
  const said = parted(sentence);
  return {
    again: false,
    byItself: false,
    tokenDead: false,
    ...known,
    ...(said.sentence ? said : {}),
  };
}

/** The server's "sentence [id]": the sentence as this page writes sentences, and the id. */
function parted(reason: string): Pick<End, "sentence" | "id"> {
  const [, text = "", id] = /^(.*?)(?: \[([0-9a-f]+)\])?$/su.exec(reason) ?? [];
  const [first = "", ...rest] = text.trim();
  const end = /[\p{L}\p{N}\])"']$/u.test(text) ? "." : "";
  const sentence = first.toUpperCase() + rest.join("") + end;
  return id ? { sentence, id } : { sentence };
}

/** Whether the server turned the viewer away, rather than ended what had begun. */
export function isRefusal(code: number, connected: boolean): boolean {
  return code >= 4000 && !connected;
}
