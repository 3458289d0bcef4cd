// The page of serial consoles.

import * as bar from "./line-bar.js";
import { start } from "./page.js";
import { SerialSession } from "./serial-session.js";
import { writeThroughCssom } from "./styles.js";

writeThroughCssom();
start((...console) => new SerialSession(...console), bar);
