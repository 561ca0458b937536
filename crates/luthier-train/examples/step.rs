use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use luthier_model::adapter::TargetModules;
use luthier_model::*;
use luthier_tensor::*;
use luthier_train::*;
#[derive(Default, Clone)]
struct Clock(Arc<Mutex<(Option<Instant>, BTreeMap<&'static str, (Duration, usize)>)>>);
impl Observer for Clock {
    fn begin(&self, _: &'static str) { self.0.lock().unwrap().0 = Some(Instant::now()); }
    fn end(&self, name: &'static str) { let mut g = self.0.lock().unwrap(); let d = g.0.unwrap().elapsed(); let e = g.1.entry(name).or_default(); e.0 += d; e.1 += 1; }
}
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let t0 = Instant::now();
    let files = luthier_files::read_model(a[1].as_ref()).unwrap();
    let checkpoint = Checkpoint::from_files(&files).unwrap();
    let precision = if a[2] == "bf16" { Precision::Bf16 } else { Precision::F32 };
    let tuning = if a[3] == "full" { Tuning::Full } else { Tuning::Lora(LoraSettings { rank: 8, alpha: 16.0, dropout: 0.0, rslora: false, targets: TargetModules::AllLinear, saved_modules: vec![], seed: 1 }) };
    let budget: usize = a[4].parse().unwrap();
    let recompute: usize = a.get(5).map_or(0, |x| x.parse().unwrap());
    let clock = Clock::default();
    let isa = std::env::var("LUTHIER_CPU").map_or(Isa::detect(), |n| Isa::named(&n).unwrap());
    let observer: Option<Box<dyn Observer>> = if std::env::var("CLOCK").is_ok() { Some(Box::new(clock.clone())) } else { None };
    let device = Device::cpu(CpuOptions { threads: std::env::var("T").map_or(2, |t| t.parse().unwrap()), isa, memory_bytes: 20 << 30, poison: false }, observer).unwrap();
    let decoder = Decoder::new(&device, &checkpoint, &tuning, None).unwrap();
    drop(checkpoint);
    let mut opt = Optimiser::new(&device, decoder.parameters(), OptimiserSettings { beta_1: 0.9, beta_2: 0.999, epsilon: 1e-8, weight_decay: 0.0, max_gradient_norm: Some(1.0) });
    println!("ready {:?}", t0.elapsed());
    let v = decoder.config().vocabulary_size as u64;
    let lens = [483usize, 300, 220, 391];
    let data: Vec<(Vec<u32>, Vec<bool>)> = lens.iter().map(|&n| ((0..n as u64).map(|i| ((i * 7919 + 13) % v) as u32).collect(), (0..n).map(|i| i * 10 > n * 4).collect())).collect();
    let rows: Vec<Row> = data.iter().enumerate().map(|(i, (ids, t))| Row { ids, trained: t, number: i as u64 }).collect();
    let parts = MicroBatch::split(&rows, budget);
    let tokens: usize = lens.iter().sum();
    let step = Step { precision, recomputed_layers: recompute, dropout_seed: None, learning_rate: 1e-4 };
    for i in 0..8 {
        clock.0.lock().unwrap().1.clear();
        let t = Instant::now();
        let r = run_step(&device, &decoder, &mut opt, &parts, &step);
        let n = r.read(&device);
        let s = t.elapsed().as_secs_f64();
        println!("step {i} loss {:.4} norm {:.4} {:.3}s {:.0} tok/s peak {} MB", n.loss, n.gradient_norm, s, tokens as f64 / s, device.usage().peak_bytes >> 20);
        if i == 0 { println!("first step done {:?}", t0.elapsed()); }
    }
    let mut v: Vec<_> = clock.0.lock().unwrap().1.clone().into_iter().collect();
    v.sort_by_key(|x| std::cmp::Reverse(x.1.0));
    for (n, (d, c)) in v { println!("{n:24} {:8.1} ms {c}", d.as_secs_f64() * 1e3); }
    for l in std::fs::read_to_string("/proc/self/status").unwrap().lines() { if l.starts_with("VmHWM") || l.starts_with("RssA") || l.starts_with("RssF") { println!("{l}"); } }
}
