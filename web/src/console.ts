// The page of VNC consoles.

import { initLogging } from "novnc/util/logging.js";

import { start } from "./page.js";
import * as toolbar from "./toolbar.js";
import { VncSession } from "./vnc-session.js";

start((target, address, settings, watcher) => {
  initLogging(settings.logging);
  return new VncSession(target, address, settings, watcher);
}, toolbar);
