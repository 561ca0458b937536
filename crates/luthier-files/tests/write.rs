//! A file is complete under its name or not there, and an error leaves what was there before.
#![allow(clippy::unwrap_used, reason = "a test may stop anywhere")]

use std::fs;
use std::io;
use std::path::Path;

use luthier_files::{Error, read_model, write_atomically, write_folder_atomically, write_model};
use luthier_model::Checkpoint;
use luthier_model::checkpoint::{TensorSpec, plan_shards};
use luthier_tensor::DType;

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_file_replaces_the_older_one_as_a_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.txt");
    write_atomically(&path, |writer| writer.write_all(b"first")).unwrap();
    write_atomically(&path, |writer| {
        writer.write_all(b"second")?;
        assert_eq!(fs::read(&path)?, b"first", "the older one stays until the end");
        Ok(())
    })
    .unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"second");
    assert_eq!(names(folder.path()), ["a.txt"]);
}

#[test]
fn an_error_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.txt");
    write_atomically(&path, |writer| writer.write_all(b"first")).unwrap();
    let error = write_atomically(&path, |writer| {
        writer.write_all(b"half")?;
        Err(io::Error::other("the disk is full"))
    });
    assert_eq!(error.unwrap_err().to_string(), format!("{}: could not write it: the disk is full", path.display()));
    assert_eq!(fs::read(&path).unwrap(), b"first");
    assert_eq!(names(folder.path()), ["a.txt"]);
}

#[test]
fn a_folder_replaces_the_older_one_as_a_whole() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("checkpoint-1");
    let fill = |text: &'static str| {
        move |folder: &Path| write_atomically(&folder.join(text), |writer| writer.write_all(text.as_bytes()))
    };
    write_folder_atomically(&path, fill("one")).unwrap();
    write_folder_atomically(&path, fill("two")).unwrap();
    assert_eq!(names(&path), ["two"]);
    let failed = write_folder_atomically(&path, |folder| {
        fill("three")(folder)?;
        Err(Error::NoModel { path: folder.into(), reason: "x".into() })
    });
    assert!(failed.is_err());
    assert_eq!(names(&path), ["two"]);
    assert_eq!(names(parent.path()), ["checkpoint-1"]);
}

#[test]
fn a_model_is_written_and_read_back() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/models/qwen3");
    let original = Checkpoint::from_files(&read_model(&fixture).unwrap()).unwrap();
    let spec = |(name, tensor): (&String, &luthier_model::checkpoint::StoredTensor)| TensorSpec {
        name: name.clone(),
        dtype: DType::F32,
        dims: tensor.dims().to_vec(),
    };
    let folder = tempfile::tempdir().unwrap();
    for limit in [u64::MAX, 30_000] {
        let target = folder.path().join(format!("copy-{limit}"));
        let shards = plan_shards(original.tensors.iter().map(spec).collect(), limit).unwrap();
        let config = original.config_json(DType::F32);
        write_model(&target, &[("config.json", &config), ("tokenizer.json", b"{}")], &shards, &mut |spec, writer| {
            let values = original.tensors[&spec.name].to_f32().unwrap();
            values.iter().try_for_each(|value| writer.write_all(&value.to_le_bytes()))
        })
        .unwrap();
        let copy = Checkpoint::from_files(&read_model(&target).unwrap()).unwrap();
        assert_eq!(copy.model, original.model);
        for (name, tensor) in &original.tensors {
            assert_eq!(copy.tensors[name].to_f32(), tensor.to_f32(), "{name}");
        }
    }
}
