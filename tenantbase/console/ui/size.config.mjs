import { svelte } from "@sveltejs/vite-plugin-svelte";
import {brotliCompressSync} from "node:zlib";
export default { root: process.cwd(), base:"./", plugins:[svelte(process.env.TREE?{compilerOptions:{fragments:"tree"}}:{}),{name:"s",generateBundle(o,b){for(const c of Object.values(b)) if(c.modules){let t={};for(const [k,m] of Object.entries(c.modules)) t[k.replace(process.cwd(),"")]=m.renderedLength; console.log(Object.entries(t).sort((a,b)=>b[1]-a[1]).slice(0,60).map(e=>e[1]+" "+e[0]).join("\n")); console.log("TOTAL", c.code.length, brotliCompressSync(c.code).length)}}}],
 build:{outDir:"/tmp/sizeout",emptyOutDir:true,target:["chrome123","firefox120","safari17.5"],modulePreload:{polyfill:false},minify:process.env.MIN||"esbuild", reportCompressedSize:false}};
