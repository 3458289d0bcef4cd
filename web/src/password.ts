// The form for what a console asks before it lets anyone in. Nothing typed here is kept.

import type { Credentials } from "novnc/rfb.js";

import { element } from "./view.js";

const form = element("credentials", HTMLFormElement);
const fields: Record<keyof Credentials, HTMLInputElement> = {
  username: element("username", HTMLInputElement),
  password: element("password", HTMLInputElement),
  target: element("target", HTMLInputElement),
};

/** What is asked for, above the fields. */
export function question(types: (keyof Credentials)[]): string {
  const who = types.includes("username") ? "a user name and a password" : "a password";
  return `This console asks for ${who}`;
}

/** Shows the fields wanted and hands over what was typed, once. */
export function ask(types: (keyof Credentials)[], answer: (given: Credentials) => void): void {
  const wanted = types.filter((type) => type in fields);
  for (const [name, input] of Object.entries(fields)) {
    const row = input.closest<HTMLElement>(".field");
    const hidden = !wanted.some((each) => each === name);
    input.value = "";
    input.disabled = hidden;
    if (row) {
      row.hidden = hidden;
    }
  }
  form.onsubmit = (event) => {
    event.preventDefault();
    const given = Object.fromEntries(wanted.map((name) => [name, fields[name].value]));
    clear();
    answer(given);
  };
  const first = wanted[0];
  if (first) {
    fields[first].focus();
  }
}

/** Forgets what stands in the fields. */
export function clear(): void {
  form.onsubmit = (event) => event.preventDefault();
  Object.values(fields).forEach((input) => (input.value = ""));
}
