import { mount } from "svelte";
import App from "./App.svelte";
import "./tokens.css";
import "./console.css";
import "./app.css";

const root = document.getElementById("root");
if (root) mount(App, { target: root });
