//! What waits for what.

use std::collections::VecDeque;

use petgraph::algo::tarjan_scc;
use petgraph::graph::{DiGraph, NodeIndex};

/// For each step, the steps it waits for.
pub struct Waits<'a>(pub &'a [Vec<usize>]);

impl Waits<'_> {
    /// One shortest cycle out of every knot of steps that wait for each other, as a closed path: the first step is also
    /// the last. Begins with the earliest step.
    pub fn cycles(&self) -> Vec<Vec<usize>> {
        let mut graph = DiGraph::<usize, ()>::new();
        let nodes: Vec<NodeIndex> = (0..self.0.len()).map(|step| graph.add_node(step)).collect();
        for (step, after) in self.0.iter().enumerate() {
            for &earlier in after {
                graph.add_edge(nodes[step], nodes[earlier], ());
            }
        }
        let mut knots: Vec<Vec<usize>> =
            tarjan_scc(&graph).into_iter().map(|knot| knot.into_iter().map(|node| graph[node]).collect()).collect();
        knots.iter_mut().for_each(|knot: &mut Vec<usize>| knot.sort_unstable());
        knots.sort();
        knots
            .iter()
            .filter_map(|knot| knot.iter().filter_map(|&start| self.way_back(start)).min_by_key(Vec::len))
            .collect()
    }

    /// The shortest path from a step over what it waits for back to itself.
    fn way_back(&self, start: usize) -> Option<Vec<usize>> {
        let mut came_from: Vec<Option<usize>> = vec![None; self.0.len()];
        let mut queue = VecDeque::from([start]);
        while let Some(step) = queue.pop_front() {
            for &next in &self.0[step] {
                if next == start {
                    let mut path = vec![start];
                    let mut at = step;
                    while at != start {
                        path.push(at);
                        at = came_from[at]?;
                    }
                    path.push(start);
                    path.reverse();
                    return Some(path);
                }
                if came_from[next].is_none() {
                    came_from[next] = Some(step);
                    queue.push_back(next);
                }
            }
        }
        None
    }

    /// For each step, whether each other step has surely ended before it starts. Only for steps without cycles.
    pub fn ancestors(&self) -> Vec<Vec<bool>> {
        let count = self.0.len();
        let mut all: Vec<Vec<bool>> = Vec::with_capacity(count);
        for start in 0..count {
            let mut seen = vec![false; count];
            let mut open = self.0[start].clone();
            while let Some(step) = open.pop() {
                if !std::mem::replace(&mut seen[step], true) {
                    open.extend(&self.0[step]);
                }
            }
            all.push(seen);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_knot_gives_its_shortest_cycle() {
        let waits = [vec![2], vec![0], vec![1, 0], vec![], vec![4], vec![6], vec![5, 3]];
        assert_eq!(Waits(&waits).cycles(), [vec![0, 2, 0], vec![4, 4], vec![5, 6, 5]]);
        assert!(Waits(&[vec![], vec![0], vec![0, 1]]).cycles().is_empty());
    }

    #[test]
    fn ancestors_are_found_over_several_steps() {
        let waits = [vec![], vec![0], vec![], vec![1]];
        assert_eq!(Waits(&waits).ancestors()[3], [true, true, false, false]);
    }
}
