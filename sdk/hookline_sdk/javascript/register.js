// node --import ./hookline-sdk/register.js --test: lets tests import a plugin that imports its host.
import { register } from "node:module";

register("./loader.js", import.meta.url);
