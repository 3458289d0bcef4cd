#!/usr/bin/env node
// Drives a console page in Chromium, one step after the other, and says what it saw.
//
//   node console.mjs --url-file FILE --wait-state connected --expect-pixel 5,5,#2060c0
//   node console.mjs --url-file FILE --without-cookies --wait-state connected
//
// Steps run in the order given; each waits for its condition, at most --timeout seconds (15).
// Exit code 0: all steps passed. 1: one failed, and stderr says which and what was seen instead.
// 2: the command line is wrong. The address is a secret and is never printed.

import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { chromium } from "playwright-core";

const USAGE = `usage: console.mjs (--url URL | --url-file FILE | CONSOLE_URL in the environment) [--timeout S] [--without-cookies] STEP...
steps:
  --wait-state STATE               connecting, credentials, connected, disconnected or refused
  --wait-canvas                    a console's picture is there (for pages other than ours)
  --expect-pixel X,Y,#RRGGBB[,TOLERANCE]   (also --then-pixel) in the console's own coordinates
  --click X,Y                      in the console's own coordinates
  --type TEXT | --press KEY        with the keyboard, into whatever has the focus
  --focus                          give the console the keyboard
  --fill SELECTOR=TEXT             into a field of the page
  --push SELECTOR                  click an element of the page, in sight or not
  --expect-message SUBSTRING       in #message
  --expect-text SELECTOR=SUBSTRING
  --expect-style "SELECTOR=PROPERTY: VALUE"   as the browser computed it
  --expect-title SUBSTRING
  --expect-code N                  the close code
  --address-bar-lacks TEXT
  --reload | --goto URL | --size WIDTHxHEIGHT
  --no-errors                      nothing so far on the browser's error log
  --screenshot FILE`;

const FLAGS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

const CANVAS = "#screen canvas, #noVNC_container canvas";

class Failure extends Error {}
class Misuse extends Error {}

/** Polls until `look` returns undefined; else fails with the last thing it saw. */
async function until(run, what, look) {
  const deadline = performance.now() + run.timeoutMs;
  for (;;) {
    const seen = await look().catch((error) => firstLine(error));
    if (seen === undefined) {
      return;
    }
    if (performance.now() > deadline) {
      throw new Failure(`${what}: after ${run.timeoutMs / 1000} s saw ${seen}`);
    }
    await new Promise((resume) => setTimeout(resume, 40));
  }
}

const firstLine = (error) => String(error?.message ?? error).split("\n")[0];

/** What the page says about itself, in one line. */
function describe(page) {
  return page.evaluate(() => {
    const { state, code } = document.documentElement.dataset;
    const message = document.getElementById("message")?.textContent?.trim();
    const coded = code ? ` with code ${code}` : "";
    return `state ${state ?? "(none)"}${coded}, message "${message ?? ""}"`;
  });
}

const holds = async (page, ok) => (ok ? undefined : await describe(page));

async function waitState(run, wanted) {
  await until(run, `state ${wanted}`, async () => {
    const state = await run.page.evaluate(() => document.documentElement.dataset.state);
    return holds(run.page, state === wanted);
  });
}

async function waitCanvas(run) {
  await until(run, "a console's picture", async () => {
    const size = await run.page.evaluate((selector) => {
      const canvas = document.querySelector(selector);
      return canvas ? canvas.width * canvas.height : 0;
    }, CANVAS);
    return size > 0 ? undefined : "no canvas with a size";
  });
}

function point(text) {
  const match = /^(\d+),(\d+)$/.exec(text);
  if (!match) {
    throw new Misuse(`"${text}" is not X,Y`);
  }
  return { x: Number(match[1]), y: Number(match[2]) };
}

async function expectPixel(run, argument) {
  const match = /^(\d+,\d+),#([0-9a-f]{6})(?:,(\d+))?$/i.exec(argument);
  if (!match) {
    throw new Misuse(`"${argument}" is not X,Y,#RRGGBB[,TOLERANCE]`);
  }
  const [, place, hex, tolerance = "0"] = match;
  const wanted = [0, 2, 4].map((start) => Number.parseInt(hex.slice(start, start + 2), 16));
  const where = { ...point(place), selector: CANVAS };
  await until(run, `pixel ${place} is #${hex}`, async () => {
    const pixel = await run.page.evaluate(({ x, y, selector }) => {
      const canvas = document.querySelector(selector);
      if (!canvas || x >= canvas.width || y >= canvas.height) {
        return canvas ? `a picture of ${canvas.width}x${canvas.height}` : "no canvas";
      }
      return [...canvas.getContext("2d").getImageData(x, y, 1, 1).data].slice(0, 3);
    }, where);
    if (typeof pixel === "string") {
      return `${pixel}; ${await describe(run.page)}`;
    }
    const close = pixel.every((value, index) => Math.abs(value - wanted[index]) <= Number(tolerance));
    return close ? undefined : `#${pixel.map((value) => value.toString(16).padStart(2, "0")).join("")}`;
  });
}

async function click(run, argument) {
  const where = { ...point(argument), selector: CANVAS };
  const spot = await run.page.evaluate(({ x, y, selector }) => {
    const canvas = document.querySelector(selector);
    const box = canvas?.getBoundingClientRect();
    return box && { x: box.x + ((x + 0.5) * box.width) / canvas.width, y: box.y + ((y + 0.5) * box.height) / canvas.height };
  }, where);
  if (!spot) {
    throw new Failure(`click ${argument}: no canvas; ${await describe(run.page)}`);
  }
  await run.page.mouse.click(spot.x, spot.y);
}

/** `SELECTOR=TEXT`; the selector may hold no equals sign outside brackets. */
function assignment(argument) {
  const match = /^((?:\[[^\]]*\]|[^=[])+)=([\s\S]*)$/.exec(argument);
  if (!match) {
    throw new Misuse(`"${argument}" is not SELECTOR=TEXT`);
  }
  return [match[1], match[2]];
}

async function expectText(run, argument) {
  const [selector, wanted] = assignment(argument);
  await until(run, `${selector} says "${wanted}"`, async () => {
    const text = await run.page.evaluate((css) => {
      const found = document.querySelector(css);
      return found && (found.value ?? found.textContent);
    }, selector);
    return text?.includes(wanted) ? undefined : JSON.stringify(text);
  });
}

async function expectStyle(run, argument) {
  const [selector, wanted] = assignment(argument);
  const [property, value] = wanted.split(": ");
  await until(run, `${selector} has ${wanted}`, async () => {
    const seen = await run.page.evaluate(
      ([css, name]) => {
        const found = document.querySelector(css);
        return found && getComputedStyle(found).getPropertyValue(name);
      },
      [selector, property],
    );
    return seen === value ? undefined : JSON.stringify(seen);
  });
}

async function expectMessage(run, wanted) {
  await until(run, `message "${wanted}"`, async () => {
    const text = await run.page.evaluate(() => document.getElementById("message")?.textContent);
    return holds(run.page, text?.includes(wanted));
  });
}

async function expectCode(run, wanted) {
  await until(run, `close code ${wanted}`, async () => {
    const code = await run.page.evaluate(() => document.documentElement.dataset.code);
    return holds(run.page, code === wanted);
  });
}

async function expectTitle(run, wanted) {
  await until(run, `title "${wanted}"`, async () => {
    const title = await run.page.title();
    return title.includes(wanted) ? undefined : JSON.stringify(title);
  });
}

/** Looks at the browser's own idea of the address, and at the page's. Tells neither. */
async function addressBarLacks(run, secret) {
  await until(run, "the address bar lacks the text", async () => {
    const address = await run.page.evaluate(() => location.href);
    const shown = run.page.url().includes(secret) || address.includes(secret);
    return shown ? "that it is there" : undefined;
  });
}

function noErrors(run) {
  if (run.errors.length > 0) {
    throw new Failure(`no errors: the browser logged ${run.errors.join(" | ")}`);
  }
}

async function size(run, argument) {
  const [width, height] = argument.split("x").map(Number);
  await run.page.setViewportSize({ width, height });
}

const withFocus = (run) => run.page.evaluate((css) => document.querySelector(css)?.focus(), CANVAS);
const STEPS = {
  "--wait-state": waitState,
  "--expect-pixel": expectPixel,
  "--then-pixel": expectPixel,
  "--click": click,
  "--type": (run, text) => run.page.keyboard.type(text, { delay: 5 }),
  "--press": (run, key) => run.page.keyboard.press(key),
  "--fill": (run, argument) => run.page.fill(...assignment(argument), { timeout: run.timeoutMs }),
  "--push": (run, selector) => run.page.dispatchEvent(selector, "click", {}, { timeout: run.timeoutMs }),
  "--expect-message": expectMessage,
  "--expect-text": expectText,
  "--expect-style": expectStyle,
  "--expect-title": expectTitle,
  "--expect-code": expectCode,
  "--address-bar-lacks": addressBarLacks,
  "--goto": (run, url) => run.page.goto(url, { waitUntil: "domcontentloaded", timeout: run.timeoutMs }),
  "--size": size,
  "--screenshot": (run, path) => run.page.screenshot({ path }),
};
const BARE_STEPS = {
  "--wait-canvas": waitCanvas,
  "--focus": withFocus,
  "--reload": (run) => run.page.reload({ waitUntil: "domcontentloaded", timeout: run.timeoutMs }),
  "--no-errors": noErrors,
};

async function parse(words) {
  const plan = { url: process.env.CONSOLE_URL, timeoutMs: 15_000, cookies: true, steps: [] };
  const rest = [...words];
  while (rest.length > 0) {
    const name = rest.shift();
    if (name === "--without-cookies") {
      plan.cookies = false;
      continue;
    }
    if (Object.hasOwn(BARE_STEPS, name)) {
      plan.steps.push({ name, act: BARE_STEPS[name] });
      continue;
    }
    const value = rest.shift();
    if (value === undefined) {
      throw new Misuse(`${name} is unknown or lacks its value`);
    }
    if (name === "--url") {
      plan.url = value;
    } else if (name === "--url-file") {
      plan.url = (await readFile(value, "utf8")).trim();
    } else if (name === "--timeout") {
      plan.timeoutMs = Number(value) * 1000;
    } else if (Object.hasOwn(STEPS, name)) {
      plan.steps.push({ name, act: STEPS[name], value });
    } else {
      throw new Misuse(`${name} is unknown`);
    }
  }
  if (!plan.url || !(plan.timeoutMs > 0)) {
    throw new Misuse("an address and a timeout over 0 are needed");
  }
  return plan;
}

async function step(name, act) {
  try {
    await act();
  } catch (error) {
    const ours = error instanceof Failure || error instanceof Misuse;
    throw ours ? error : new Failure(`${name}: ${firstLine(error)}`);
  }
}

/** As a person who forbids sites to keep anything: cookies and storage. */
async function forbidCookies(profile) {
  const forbidden = { profile: { default_content_setting_values: { cookies: 2 } } };
  await mkdir(join(profile, "Default"), { recursive: true });
  await writeFile(join(profile, "Default/Preferences"), JSON.stringify(forbidden));
}

async function perform(plan, profile) {
  if (!plan.cookies) {
    await forbidCookies(profile);
  }
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: FLAGS,
    viewport: { width: 1280, height: 800 },
    ignoreHTTPSErrors: true,
  });
  try {
    const page = context.pages()[0] ?? (await context.newPage());
    const run = { page, timeoutMs: plan.timeoutMs, errors: [] };
    page.on("console", (line) => line.type() === "error" && run.errors.push(line.text()));
    page.on("pageerror", (error) => run.errors.push(firstLine(error)));
    await page.goto(plan.url, { waitUntil: "domcontentloaded", timeout: plan.timeoutMs }).catch(() => {
      throw new Failure("the page did not load");
    });
    for (const { name, act, value } of plan.steps) {
      await step(name, () => act(run, value));
    }
  } finally {
    await context.close();
  }
}

async function main() {
  const plan = await parse(process.argv.slice(2));
  const profile = await mkdtemp(join(tmpdir(), "vncgate-browser-"));
  try {
    await perform(plan, profile);
  } finally {
    await rm(profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
  }
}

main().catch((error) => {
  const misuse = error instanceof Misuse;
  process.stderr.write(misuse ? `console.mjs: ${error.message}\n${USAGE}\n` : `console.mjs: ${firstLine(error)}\n`);
  process.exitCode = misuse ? 2 : 1;
});
