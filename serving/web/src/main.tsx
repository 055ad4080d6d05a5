import "./style/page.css";
import "./style/parts.css";
import "./style/map.css";
import { render } from "preact";
import { App } from "./app";
import { begin } from "./opening";
import { openError } from "./store";

render(<App />, document.getElementById("page")!);
begin().catch((error: Error) => (openError.value = error.message));
