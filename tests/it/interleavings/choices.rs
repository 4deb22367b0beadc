//! The tree of choices, walked depth-first: each execution begins at the root again.

/// What was chosen so far, and what is left to choose.
#[derive(Debug, Default)]
pub struct Choices {
    path: Vec<Choice>,
    next: usize,
}

#[derive(Clone, Copy, Debug)]
struct Choice {
    taken: usize,
    of: usize,
}

impl Choices {
    /// The path that a failure has named, such as `0.3.1`.
    pub fn replaying(path: &str) -> Self {
        let taken = path.split('.').map(|taken| taken.parse().expect("a path such as 0.3.1"));
        Self { path: taken.map(|taken| Choice { taken, of: usize::MAX }).collect(), next: 0 }
    }

    /// One of so many options: those of the path first, then always the first one.
    pub fn choose(&mut self, of: usize) -> usize {
        assert_ne!(of, 0, "there is something to choose from");
        if of == 1 {
            return 0;
        }
        if self.next == self.path.len() {
            self.path.push(Choice { taken: 0, of });
        }
        let choice = self.path[self.next];
        let is_same = choice.of == of || choice.of == usize::MAX;
        assert!(is_same, "an execution is not repeatable: {} options, then {of}", choice.of);
        self.next += 1;
        choice.taken
    }

    /// Goes to the next path; `false` if there is none.
    pub fn advance(&mut self) -> bool {
        self.next = 0;
        while let Some(last) = self.path.last_mut() {
            last.taken += 1;
            if last.taken < last.of {
                return true;
            }
            self.path.pop();
        }
        false
    }

    /// The path, as [`replaying`](Self::replaying) reads it.
    pub fn path(&self) -> String {
        let taken = self.path.iter().map(|choice| choice.taken.to_string());
        taken.collect::<Vec<_>>().join(".")
    }
}

#[test]
fn every_path_of_a_tree_is_walked_once() {
    let mut choices = Choices::default();
    let mut walked = Vec::new();
    loop {
        let first = choices.choose(3);
        let second = if first == 1 { choices.choose(2) } else { choices.choose(1) };
        walked.push((first, second));
        if !choices.advance() {
            break;
        }
    }
    assert_eq!(walked, [(0, 0), (1, 0), (1, 1), (2, 0)]);
}
