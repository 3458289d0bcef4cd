// The page of SPICE consoles.

import { start } from "./page.js";
import { SpiceSession } from "./spice-session.js";
import * as toolbar from "./toolbar.js";

start((...console) => new SpiceSession(...console), toolbar);
